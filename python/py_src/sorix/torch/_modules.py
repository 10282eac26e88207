"""The dropouts as modules: PyTorch's classes, whose subclasses they are, with ``generator=``."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from .._kinds import check_kind
from . import _functional as functional
from . import _fused, _fused_ops, _norm, _ops
from ._functional import SaveMask
from ._ops import ALPHA, SCALE, UNSCALED

_PARAMETERS = """

    Parameters
    ----------
    p : float
        The probability of dropping, in [0, 1]. It may be changed at any time; a compiled model is not
        compiled again.{}
    generator : torch.Generator, optional
        Where keys come from; by default PyTorch's own. A compiled model wants PyTorch's own.
    save_mask : {{"key", "bits"}}
        What is kept for backward: 16 bytes, or a bit for each decision, which is a little faster. Compiled
        models keep keys.
    """


class _Dropout(nn.modules.dropout._DropoutNd):
    """What all have in common."""

    generator: torch.Generator | None
    save_mask: SaveMask

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        generator: torch.Generator | None = None,
        save_mask: SaveMask = "key",
    ) -> None:
        super().__init__(p, inplace)
        if save_mask not in ("key", "bits"):
            raise ValueError(f"save_mask: expected 'key' or 'bits', got {save_mask!r}")
        if generator is not None:
            check_kind("generator", generator, torch.Generator, "a torch.Generator")
        self.generator = generator
        self.save_mask = save_mask

    @property
    def p(self) -> float:
        """The probability of dropping, in [0, 1]."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        functional._checked(p)
        self._p = float(p)
        # A number would be part of a compiled graph, which then held for it alone; a tensor is an input. No
        # buffer: those are converted with the model, and sent around by DistributedDataParallel.
        with _disable_current_modes(), torch.inference_mode(False):
            self._rate = torch.tensor(self._p, dtype=torch.float64, device="cpu")

    def _probability(self, *inputs: Tensor) -> tuple[float, Tensor | None]:
        """As a number; or for a compiled graph as a tensor, and then any number will do."""
        if torch.compiler.is_compiling() and all(_ops.is_traced(x) for x in inputs):
            return 0.5, self._rate
        return self._p, None

    def _drop(self, input: Tensor, shared: int = 0, form: int = SCALE) -> Tensor:
        p, rate = self._probability(input)
        straight = not torch.compiler.is_compiling() and not self.inplace and p != 0.0
        if straight and _ops.is_ordinary(input):
            # The same as below, with less in between.
            seed, offset = _ops.key_numbers(None, self.generator)
            return _ops.drop(input, (seed, offset, p, shared, form, None), self.save_mask)
        return functional.drop(
            input,
            p,
            shared=shared,
            form=form,
            inplace=self.inplace,
            generator=self.generator,
            save_mask=self.save_mask,
            rate=rate,
        )


class Dropout(_Dropout, nn.Dropout):
    """Drops each element with probability ``p`` and multiplies the others by ``1 / (1 - p)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        return self._drop(input) if self.training else input


class _Fused(_Dropout):
    """What those have in common that do something else in the pass: there is no ``inplace``."""

    def __init__(
        self,
        p: float = 0.5,
        *,
        generator: torch.Generator | None = None,
        save_mask: SaveMask = "key",
    ) -> None:
        super().__init__(p, generator=generator, save_mask=save_mask)

    def _draw(self, *inputs: Tensor) -> _fused.Draw:
        p, rate = self._probability(*inputs)
        return _fused.Draw(p, None, self.generator, None, self.save_mask, rate)

    def extra_repr(self) -> str:
        """The probability."""
        return f"p={self.p}"


class DropoutAdd(_Fused):
    """``residual + dropout(input)`` in one pass over memory: the end of a residual branch."""

    def forward(self, input: Tensor, residual: Tensor, bias: Tensor | None = None) -> Tensor:
        """Of any shape, both of the same; with a bias as long as the last axis, which is added to the input."""
        functional.check_like("residual", input, residual)
        if bias is not None:
            functional.check_like("bias", input, bias, input.shape[-1:])
        if not self.training:
            return residual + (input if bias is None else input + bias)
        draw = self._draw(input, residual)
        if bias is not None:
            return _fused.bias_add(input, bias, residual, draw)
        return functional.drop_add(
            input,
            residual,
            draw.p,
            generator=self.generator,
            save_mask=self.save_mask,
            rate=draw.rate,
        )


class _ActDropout(_Fused):
    def _activation(self) -> _fused.Activation:
        raise NotImplementedError

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        activation = self._activation()
        if not self.training:
            return _fused_ops.activate(activation, input)
        return _fused.act(input, None, activation, self._draw(input))


class ReLUDropout(_ActDropout):
    """A rectifier and then a dropout, in one pass over memory; in use the rectifier. What is kept for backward is
    one bit for each element, and neither input nor output, whatever ``save_mask`` says."""

    def _activation(self) -> _fused.Activation:
        return "relu"


class GELUDropout(_ActDropout):
    """A GELU and then a dropout, in one pass over memory; in use the GELU. 16 bits are rounded once."""

    def __init__(
        self,
        p: float = 0.5,
        approximate: Literal["none", "tanh"] = "none",
        *,
        generator: torch.Generator | None = None,
        save_mask: SaveMask = "key",
    ) -> None:
        super().__init__(p, generator=generator, save_mask=save_mask)
        if approximate not in ("none", "tanh"):
            raise ValueError(f"approximate: expected 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def _activation(self) -> _fused.Activation:
        return "gelu_tanh" if self.approximate == "tanh" else "gelu"

    def extra_repr(self) -> str:
        """The probability and the formula."""
        return f"p={self.p}, approximate={self.approximate!r}"


class SiLUDropout(_ActDropout):
    """A SiLU and then a dropout, in one pass over memory; in use the SiLU. 16 bits are rounded once."""

    def _activation(self) -> _fused.Activation:
        return "silu"


class SwiGLUDropout(_Fused):
    """``dropout(silu(gate) * up)`` in one pass over memory; in use nothing is dropped. 16 bits are rounded once."""

    def forward(self, input: Tensor, up: Tensor | None = None) -> Tensor:
        """Of gate and up; or of one tensor whose last axis has the gate as its first half and up as its second,
        which is how ``nn.GLU`` cuts."""
        gate = input
        if up is None:
            if input.dim() == 0 or input.shape[-1] % 2:
                got = tuple(input.shape)
                raise ValueError(f"input: expected a last axis of even length, got shape {got}")
            gate, up = input.chunk(2, -1)
        functional.check_like("up", gate, up)
        if not self.training:
            return nn.functional.silu(gate) * up
        return _fused.swiglu(gate, up, self._draw(gate, up))


class DropoutAddNorm(_Fused):
    """The normalised ``residual + dropout(input)``, and that sum, in one pass over memory: what stands between the
    sublayers of a transformer. The parameters have the names of ``nn.LayerNorm``'s, so that the state of one fits
    the other.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The lengths of the last axes that are normalised.
    p : float
        The probability of dropping, in [0, 1].
    eps : float
        Is added to the variance, or to the mean of squares.
    elementwise_affine : bool
        Whether there are a weight and a bias.
    bias : bool
        Whether there is a bias; of RMS there is none.
    norm : {"layer", "rms"}
        As ``nn.LayerNorm`` or as ``nn.RMSNorm``.
    generator : torch.Generator, optional
        Where keys come from; by default PyTorch's own. A compiled model wants PyTorch's own.
    save_mask : {"key", "bits"}
        What is kept for backward of the mask: 16 bytes, or a bit for each element, which is a little faster.
    device, dtype
        Of weight and bias.

    Examples
    --------
    >>> import torch
    >>> import sorix.torch
    >>> layer = sorix.torch.DropoutAddNorm(4, 0.5)
    >>> x, residual = torch.randn(2, 3, 4)
    >>> z, total = layer(x, residual)
    >>> bool(torch.allclose(z, torch.nn.functional.layer_norm(total, (4,)), atol=1e-6))
    True
    >>> _, total = layer.eval()(x, residual)
    >>> bool((total == residual + x).all())
    True
    """

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        normalized_shape: int | list[int] | tuple[int, ...],
        p: float = 0.5,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        norm: Literal["layer", "rms"] = "layer",
        generator: torch.Generator | None = None,
        save_mask: SaveMask = "key",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(p, generator=generator, save_mask=save_mask)
        _norm.check_norm(norm, eps)
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape = tuple(shape)
        self.eps = float(eps)
        self.norm = norm

        def parameter(value: float) -> nn.Parameter:
            return nn.Parameter(torch.full(shape, value, device=device, dtype=dtype))

        bias = bias and elementwise_affine and norm == "layer"
        self.register_parameter("weight", parameter(1.0) if elementwise_affine else None)
        self.register_parameter("bias", parameter(0.0) if bias else None)

    def forward(self, input: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Of an input that ends in these axes, and a residual of its shape; the normalised sum, and the sum."""
        weight, bias = self.weight, self.bias
        _norm.check_tensors(input, residual, self.normalized_shape, weight, bias)
        draw = self._draw(input, residual) if self.training else _norm.undrawn()
        if draw.p == 0.0:
            draw = _norm.undrawn()
        rows = _norm.Rows(len(self.normalized_shape), self.eps, self.norm == "rms")
        return _norm.add_norm(input, residual, weight, bias, rows, draw)

    def extra_repr(self) -> str:
        """The axes and the options."""
        return f"{self.normalized_shape}, p={self.p}, eps={self.eps}, norm={self.norm!r}"


class Dropout1d(_Dropout, nn.Dropout1d):
    """Drops whole channels of ``(N, C, L)`` or ``(C, L)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Of two or three axes."""
        shared = functional.channels(input, 1)
        return self._drop(input, shared) if self.training else input


class Dropout2d(_Dropout, nn.Dropout2d):
    """Drops whole channels of ``(N, C, H, W)``, or as PyTorch of ``(N, C, L)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Of three or four axes."""
        shared = functional.channels(input, 2)
        return self._drop(input, shared) if self.training else input


class Dropout3d(_Dropout, nn.Dropout3d):
    """Drops whole channels of ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Of four or five axes."""
        shared = functional.channels(input, 3)
        return self._drop(input, shared) if self.training else input


class AlphaDropout(_Dropout, nn.AlphaDropout):
    """Dropout that keeps mean 0 and variance 1, for self-normalising networks."""

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        return self._drop(input, form=ALPHA) if self.training else input


class FeatureAlphaDropout(_Dropout, nn.FeatureAlphaDropout):
    """Alpha dropout of whole channels of ``(N, C, ...)``."""

    def forward(self, input: Tensor) -> Tensor:
        """Of two axes or more."""
        if not self.training:
            return input
        if input.dim() < 2:
            raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
        return self._drop(input, functional._from_axis(2, input.dim()), ALPHA)


class DropPath(_Dropout):
    """Drops whole samples, the first axis, or the whole batch: stochastic depth.

    The second argument is ``inplace``, as of PyTorch's dropouts; timm's ``scale_by_keep`` is a keyword here."""

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        scale_by_keep: bool = True,
        mode: functional.PathMode = "row",
        generator: torch.Generator | None = None,
        save_mask: SaveMask = "key",
    ) -> None:
        super().__init__(p, inplace, generator=generator, save_mask=save_mask)
        functional.check_mode(mode)
        self.scale_by_keep = scale_by_keep
        self.mode = mode

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape."""
        if not self.training:
            return input
        return self._drop(input, functional.paths(input, self.mode), self._form())

    def forward_add(self, input: Tensor, residual: Tensor) -> Tensor:
        """``residual + self(input)`` in one pass over memory, of any shape, both of the same; see
        :func:`drop_path_add`. It is a new tensor, ``inplace`` or not.

        Examples
        --------
        >>> import torch
        >>> import sorix.torch
        >>> x, residual = torch.randn(2, 8, 3)
        >>> layer = sorix.torch.DropPath(0.5)
        >>> _ = torch.manual_seed(42)
        >>> y = layer.forward_add(x, residual)
        >>> _ = torch.manual_seed(42)
        >>> bool((y == residual + layer(x)).all())
        True
        """
        functional.check_like("residual", input, residual)
        if not self.training:
            return residual + input
        p, rate = self._probability(input, residual)
        return functional.drop_add(
            input,
            residual,
            p,
            shared=functional.paths(input, self.mode),
            form=self._form(),
            generator=self.generator,
            save_mask=self.save_mask,
            rate=rate,
        )

    def _form(self) -> int:
        return SCALE if self.scale_by_keep else UNSCALED

    def extra_repr(self) -> str:
        """The options."""
        return f"p={self.p}, inplace={self.inplace}, scale_by_keep={self.scale_by_keep}, mode={self.mode}"


class LockedDropout(_Dropout):
    """One mask for all steps of a sequence: of the axis last but one, as in ``(N, T, C)``; ``time_axis=0`` for
    ``(T, N, C)``."""

    def __init__(
        self,
        p: float = 0.5,
        inplace: bool = False,
        *,
        time_axis: int = -2,
        generator: torch.Generator | None = None,
        save_mask: SaveMask = "key",
    ) -> None:
        super().__init__(p, inplace, generator=generator, save_mask=save_mask)
        self.time_axis = time_axis

    def forward(self, input: Tensor) -> Tensor:
        """Of any shape with this axis."""
        if not -input.dim() <= self.time_axis < input.dim():
            raise IndexError(f"time_axis: expected an axis of {input.dim()}, got {self.time_axis}")
        if not self.training:
            return input
        return self._drop(input, 1 << self.time_axis % input.dim())

    def extra_repr(self) -> str:
        """The options."""
        return f"p={self.p}, inplace={self.inplace}, time_axis={self.time_axis}"


for _module, _more in [
    (Dropout, ""),
    (Dropout1d, ""),
    (Dropout2d, ""),
    (Dropout3d, ""),
    (AlphaDropout, ""),
    (FeatureAlphaDropout, ""),
    (DropPath, functional.PATHS),
    (
        LockedDropout,
        """
    time_axis : int
        The axis of the steps.""",
    ),
]:
    _module.__doc__ = (_module.__doc__ or "") + _PARAMETERS.format(functional.INPLACE + _more)
_EXAMPLE = """
    Examples
    --------
    >>> import torch
    >>> import sorix.torch
    >>> {} = torch.randn({})
    >>> layer = sorix.torch.{}(0.5)
    >>> _ = torch.manual_seed(42)
    >>> y = layer({})
    >>> _ = torch.manual_seed(42)
    >>> bool(torch.allclose(y, {}))
    True
    """
_APPROXIMATE = """
    approximate : {"none", "tanh"}
        The exact form, or by the formula with the hyperbolic tangent, as ``nn.GELU``."""
for _fusing, _more, _example in [
    (
        DropoutAdd,
        "",
        ("x, residual", "2, 3, 4", "x, residual", "residual + sorix.torch.dropout(x, 0.5)"),
    ),
    (ReLUDropout, "", ("x", "3, 4", "x", "sorix.torch.dropout(torch.relu(x), 0.5)")),
    (
        GELUDropout,
        _APPROXIMATE,
        ("x", "3, 4", "x", "sorix.torch.dropout(torch.nn.functional.gelu(x), 0.5)"),
    ),
    (
        SiLUDropout,
        "",
        ("x", "3, 4", "x", "sorix.torch.dropout(torch.nn.functional.silu(x), 0.5)"),
    ),
    (
        SwiGLUDropout,
        "",
        (
            "gate, up",
            "2, 3, 4",
            "gate, up",
            "sorix.torch.dropout(torch.nn.functional.silu(gate) * up, 0.5)",
        ),
    ),
]:
    _names, _shape, _inputs, _apart = _example
    _fusing.__doc__ = (
        (_fusing.__doc__ or "")
        + _PARAMETERS.format(_more).rstrip()
        + "\n"
        + _EXAMPLE.format(_names, _shape, _fusing.__name__, _inputs, _apart)
    )


_OURS: dict[type[nn.Module], type[_Dropout]] = {
    nn.Dropout: Dropout,
    nn.Dropout1d: Dropout1d,
    nn.Dropout2d: Dropout2d,
    nn.Dropout3d: Dropout3d,
    nn.AlphaDropout: AlphaDropout,
    nn.FeatureAlphaDropout: FeatureAlphaDropout,
}


def replace(model: nn.Module, *, generator: torch.Generator | None = None) -> list[str]:
    """Puts modules of sorix in the places of PyTorch's dropouts, with their ``p``, modes and hooks.

    Dropouts that a module does within itself, as ``nn.MultiheadAttention`` and ``nn.LSTM`` do, are no
    modules and stay; :func:`patch` reaches those too.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. Subclasses of PyTorch's dropouts stay what they are.
    generator : torch.Generator, optional
        For the new modules.

    Returns
    -------
    list of str
        The names of the modules that were replaced.

    Raises
    ------
    ValueError
        If the model itself is a dropout, which has no place to be replaced in.

    Examples
    --------
    >>> import sorix.torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.1))
    >>> sorix.torch.replace(model)
    ['1']
    """
    if type(model) in _OURS:
        kind = type(model).__name__
        raise ValueError(
            f"expected a model with dropouts in it, got a {kind}: use sorix.torch.{kind}"
        )
    made: dict[nn.Module, _Dropout] = {}
    names = []
    for path, parent in list(model.named_modules(remove_duplicate=False)):
        # One that stands in several places is in each: named_children would name the first.
        for name, child in list(parent._modules.items()):
            if child is None or type(child) not in _OURS:
                continue
            if child not in made:
                made[child] = _made_of(child, generator)
            setattr(parent, name, made[child])
            names.append(f"{path}.{name}" if path else name)
    return names


def _made_of(module: Any, generator: torch.Generator | None) -> _Dropout:
    made = _OURS[type(module)](module.p, module.inplace, generator=generator)
    # Its hooks, its mode, and whatever else was set on it.
    kept = {name: value for name, value in vars(module).items() if name != "p"}
    vars(made).update(kept)
    return made
