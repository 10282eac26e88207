"""The dropouts as functions: PyTorch's names and arguments, and where the mask comes from."""

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import Shard
from .._kinds import check_kind
from . import _ops
from ._ops import ALPHA, SCALE, UNSCALED, Key

SaveMask = Literal["key", "bits"]
PathMode = Literal["row", "batch"]

_PARAMETERS = """

    Parameters
    ----------
    input : torch.Tensor
        Of float16, bfloat16, float32 or float64, of any strides.{}
    p : float
        The probability of dropping, in [0, 1].
    training : bool
        Whether anything is dropped.{}
    key : (int, int) or torch.Tensor, optional
        Seed and offset of the mask, each in [0, 2**64), or the same bits as a tensor of two int64; by default
        drawn from the generator.
    generator : torch.Generator, optional
        Where the key comes from; by default PyTorch's own.
    shard : sorix.Shard, optional
        Which part of a larger tensor the input is: it gets the part of the mask of that one.
    save_mask : {{"key", "bits"}}
        What is kept for backward: 16 bytes, or a bit for each decision, which is a little faster.
    """


INPLACE = """
    inplace : bool
        Whether to write over the input."""

PATHS = """
    scale_by_keep : bool
        Whether to multiply what is kept by ``1 / (1 - p)``.
    mode : {"row", "batch"}
        Whether each sample is decided by itself, or all together."""


def _checked(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _check_call(input: object, p: float) -> None:
    check_tensor("input", input)
    _checked(p)


def drop(
    x: Tensor,
    p: float,
    *,
    shared: int = 0,
    form: int = SCALE,
    inplace: bool = False,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
    rate: Tensor | None = None,
) -> Tensor:
    """Any dropout, in training. ``rate`` is ``p`` as a tensor, for compiled graphs."""
    if torch.compiler.is_compiling():
        if _ops.is_traced(x):
            rate = _ops.rate_tensor(p) if rate is None else rate
            return _traced(x, rate, shared, form, inplace, key, generator, shard)
    else:
        if p == 0.0:
            return x
        if _ops.is_ordinary(x):
            part = None if shard is None else _ops.shard_of(shard, x.shape, shared)
            seed, offset = _ops.key_numbers(key, generator)
            call = (seed, offset, p, shared, form, part)
            return _ops.drop_(x, call) if inplace else _ops.drop(x, call, save_mask)
        if _ops.is_traced(x):
            rate = _ops.rate_tensor(p)
            return _traced(x, rate, shared, form, inplace, key, generator, shard)
    if key is not None or generator is not None or shard is not None:
        raise TypeError(
            "key, generator and shard: expected an ordinary tensor of float16, bfloat16, float32 or float64 on"
            f" a CPU, got {type(x).__name__} of {x.dtype} on {x.device}"
        )
    if not torch.compiler.is_compiling():
        reason = _ops.why_not(x)
        if reason is not None:
            _ops.say_once(reason)
    return _by_torch(x, p, shared, form, inplace)


def check_tensor(name: str, x: object) -> None:
    """That it is a tensor, and not an array for instance."""
    check_kind(name, x, Tensor, "a torch.Tensor")


def check_like(
    name: str,
    x: Tensor,
    other: Tensor,
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """That another tensor is as what is dropped from, but for a shape and a dtype of its own."""
    check_tensor("input", x)
    check_tensor(name, other)
    expected = tuple(x.shape) if shape is None else tuple(shape)
    if tuple(other.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(other.shape)}")
    if other.dtype != (dtype or x.dtype):
        raise TypeError(f"{name}: expected {dtype or x.dtype}, got {other.dtype}")
    if other.device != x.device:
        raise ValueError(f"{name}: expected a tensor on {x.device}, got one on {other.device}")


def drop_add(
    x: Tensor,
    residual: Tensor,
    p: float,
    *,
    shared: int = 0,
    form: int = SCALE,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
    rate: Tensor | None = None,
) -> Tensor:
    """Dropout and a sum, in training. ``rate`` is as in :func:`drop`."""
    compiling = torch.compiler.is_compiling()
    if not compiling:
        if p == 0.0:
            return residual + x
        if _ops.is_ordinary(x) and _ops.is_ordinary(residual):
            part = None if shard is None else _ops.shard_of(shard, x.shape, shared)
            seed, offset = _ops.key_numbers(key, generator)
            return _ops.drop_add(x, residual, (seed, offset, p, shared, form, part), save_mask)
    if _ops.is_traced(x) and _ops.is_traced(residual):
        rate = _ops.rate_tensor(p) if rate is None else rate
        key = _ops.key_tensor(key, generator)
        part = None if shard is None else _ops.shard_of(shard, x.shape, shared)
        function = _ops.TracedAdd if compiling else _ops.TransformedAdd
        y: Tensor = function.apply(x, residual, key, rate, shared, form, part or ())
        return y
    return residual + drop(
        x,
        p,
        shared=shared,
        form=form,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
        rate=rate,
    )


def _traced(
    x: Tensor,
    rate: Tensor,
    shared: int,
    form: int,
    inplace: bool,
    key: Key | None,
    generator: torch.Generator | None,
    shard: Shard | None,
) -> Tensor:
    key = _ops.key_tensor(key, generator)
    part = None if shard is None else _ops.shard_of(shard, x.shape, shared)
    function = _ops.Traced if torch.compiler.is_compiling() else _ops.Transformed
    y: Tensor = function.apply(x, key, rate, shared, form, part or ())
    return x.copy_(y) if inplace else y


def _by_torch(x: Tensor, p: float, shared: int, form: int, inplace: bool) -> Tensor:
    if form == ALPHA:
        function = F.feature_alpha_dropout if shared else F.alpha_dropout
        return function(x, p, True, inplace)
    if not shared and form == SCALE:
        return F.dropout(x, p, True, inplace)
    shape = [1 if shared >> axis & 1 else length for axis, length in enumerate(x.shape)]
    # There are no complex ones to draw.
    real = x.dtype.to_real() if x.is_complex() else x.dtype
    noise = x.new_empty(shape, dtype=real).bernoulli_(1.0 - p)
    if form == SCALE and p < 1.0:
        noise.div_(1.0 - p)
    return x.mul_(noise) if inplace else x * noise


def _from_axis(first: int, dim: int) -> int:
    """That all axes from one on share their decisions."""
    return (1 << dim) - (1 << first)


def check_mode(mode: str) -> None:
    """That stochastic depth has this mode."""
    if mode not in ("row", "batch"):
        raise ValueError(f"mode: expected 'row' or 'batch', got {mode!r}")


def paths(x: Tensor, mode: PathMode) -> int:
    """Which axes share their decisions if whole samples are dropped, or the whole batch."""
    return _from_axis(1 if mode == "row" else 0, x.dim())


def dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """Drops each element with probability ``p`` and multiplies the others by ``1 / (1 - p)``."""
    _check_call(input, p)
    if not training:
        return input
    return drop(
        input,
        p,
        inplace=inplace,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


def dropout_add(
    input: Tensor,
    residual: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """``residual + dropout(input)`` in one pass over memory.

    Product and sum are rounded to the dtype together, where two operations round 16 bits twice. The gradient
    of the residual is that of the result itself."""
    _check_call(input, p)
    check_like("residual", input, residual)
    if not training:
        return residual + input
    return drop_add(
        input,
        residual,
        p,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


def channels(x: Tensor, spatial: int, stacklevel: int = 3) -> int:
    """Which axes share their decisions where whole channels are dropped, as PyTorch understands shapes."""
    name, dim = f"dropout{spatial}d", x.dim()
    if spatial == 1 and dim not in (2, 3):
        raise RuntimeError(f"{name}: Expected 2D or 3D input, but received a {dim}D input.")
    if dim < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    if dim not in (spatial + 1, spatial + 2):
        warnings.warn(
            f"{name}: Received a {dim}-D input to {name}, which is deprecated: {spatial + 1}-D or"
            f" {spatial + 2}-D is expected",
            stacklevel=stacklevel,
        )
    # As there: a third axis of three is one of space for dropout2d, and not of an image without a batch.
    without_batch = dim == spatial + 1 and spatial != 2
    return _from_axis(1 if without_batch else 2, dim)


def _channel_dropout(
    spatial: int,
    input: Tensor,
    p: float,
    training: bool,
    inplace: bool,
    key: Key | None,
    generator: torch.Generator | None,
    shard: Shard | None,
    save_mask: SaveMask,
) -> Tensor:
    """Drops whole channels, which have so many axes of space."""
    _check_call(input, p)
    shared = channels(input, spatial, stacklevel=4)
    if not training:
        return input
    return drop(
        input,
        p,
        shared=shared,
        inplace=inplace,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


def dropout1d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """Drops whole channels of ``(N, C, L)`` or ``(C, L)``."""
    return _channel_dropout(1, input, p, training, inplace, key, generator, shard, save_mask)


def dropout2d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """Drops whole channels of ``(N, C, H, W)``, or as PyTorch of ``(N, C, L)``."""
    return _channel_dropout(2, input, p, training, inplace, key, generator, shard, save_mask)


def dropout3d(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """Drops whole channels of ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""
    return _channel_dropout(3, input, p, training, inplace, key, generator, shard, save_mask)


def alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """Dropout that keeps mean 0 and variance 1, for self-normalising networks."""
    _check_call(input, p)
    if not training:
        return input
    return drop(
        input,
        p,
        form=ALPHA,
        inplace=inplace,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


def feature_alpha_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = False,
    inplace: bool = False,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """Alpha dropout of whole channels of ``(N, C, ...)``."""
    _check_call(input, p)
    if not training:
        return input
    if input.dim() < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return drop(
        input,
        p,
        shared=_from_axis(2, input.dim()),
        form=ALPHA,
        inplace=inplace,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


def drop_path(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    scale_by_keep: bool = True,
    mode: PathMode = "row",
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """Drops whole samples, the first axis, or the whole batch: stochastic depth."""
    _check_call(input, p)
    check_mode(mode)
    if not training:
        return input
    return drop(
        input,
        p,
        shared=paths(input, mode),
        form=SCALE if scale_by_keep else UNSCALED,
        inplace=inplace,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


def drop_path_add(
    input: Tensor,
    residual: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    scale_by_keep: bool = True,
    mode: PathMode = "row",
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """``residual + drop_path(input)`` in one pass over memory: the end of a branch with stochastic depth.

    Of a sample that is dropped the input is not read. Product and sum are rounded to the dtype together, where
    two operations round 16 bits twice. The gradient of the residual is that of the result itself. With
    ``scale_by_keep=False`` it is two passes."""
    _check_call(input, p)
    check_mode(mode)
    check_like("residual", input, residual)
    if not training:
        return residual + input
    return drop_add(
        input,
        residual,
        p,
        shared=paths(input, mode),
        form=SCALE if scale_by_keep else UNSCALED,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


def locked_dropout(
    input: Tensor,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    *,
    time_axis: int = -2,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """One mask for all steps of a sequence, which are the last axis but one unless ``time_axis`` says otherwise."""
    _check_call(input, p)
    if not -input.dim() <= time_axis < input.dim():
        raise IndexError(f"time_axis: expected an axis of {input.dim()}, got {time_axis}")
    if not training:
        return input
    return drop(
        input,
        p,
        shared=1 << time_axis % input.dim(),
        inplace=inplace,
        key=key,
        generator=generator,
        shard=shard,
        save_mask=save_mask,
    )


for _function, _more in [
    (dropout, ""),
    (dropout1d, ""),
    (dropout2d, ""),
    (dropout3d, ""),
    (alpha_dropout, ""),
    (feature_alpha_dropout, ""),
    (drop_path, PATHS),
    (
        locked_dropout,
        """
    time_axis : int
        The axis of the steps.""",
    ),
]:
    _function.__doc__ = (_function.__doc__ or "") + _PARAMETERS.format(_more, INPLACE)
_RESIDUAL = """
    residual : torch.Tensor
        Of the shape, dtype and device of the input."""
dropout_add.__doc__ = (dropout_add.__doc__ or "") + _PARAMETERS.format(_RESIDUAL, "")
drop_path_add.__doc__ = (
    (drop_path_add.__doc__ or "")
    + _PARAMETERS.format(_RESIDUAL + PATHS, "").rstrip()
    + """

    Examples
    --------
    >>> import torch
    >>> import sorix.torch
    >>> x, residual = torch.ones(4, 3), torch.full((4, 3), 10.0)
    >>> sorix.torch.drop_path_add(x, residual, 0.5, key=(42, 0))
    tensor([[12., 12., 12.],
            [12., 12., 12.],
            [10., 10., 10.],
            [12., 12., 12.]])
    """
)
