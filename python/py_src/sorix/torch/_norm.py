"""A residual plus dropout, normalised, in one pass: the kernel, the operation that it is, its gradients, and the
function."""

import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .. import Shard
from .._sorix import _norm_draw, _norm_gradients
from . import _functional as functional
from . import _ops
from ._functional import SaveMask
from ._fused import Draw, _compiled, _documented, _records, _straight
from ._fused_ops import _call, _is_plain
from ._ops import SCALE, Call, Key, _array, _derivative, _library, _threads


class Rows(NamedTuple):
    """How rows are normalised: over how many last axes, with what added to the variance, and whether it is RMS."""

    axes: int
    eps: float
    rms: bool

    def of(self, x: Tensor) -> tuple[bool, int, float]:
        """As the native half takes it."""
        return self.rms, math.prod(x.shape[x.dim() - self.axes :]), self.eps


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype computed in."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def _arrays(*tensors: Tensor | None) -> list[Any]:
    return [None if x is None else _array(x.contiguous()) for x in tensors]


def _like(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)


# --- Kernels


def _run(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    call: Call,
    rows: Rows,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Any]:
    """The normalised rows, the sum, its moments, and the bits; not recorded."""
    seed, offset, p, _, _, shard = call
    a, r, w, s = _arrays(x, residual, weight, bias)
    count = math.prod(x.shape[: x.dim() - rows.axes])
    moments = torch.zeros(count, 2, dtype=torch.float64, device="cpu")
    z, total = _like(x), _like(x, wide(x.dtype))
    outputs = _array(z), _array(total), _array(moments)
    bits = _norm_draw(a, r, w, s, *outputs, rows.of(x), p, seed, offset, shard, save, _threads())
    return z, total, moments, bits


def _run_gradients(
    dz: Tensor,
    more: Tensor | None,
    total: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    rows: Rows,
    of_weight: bool,
    of_bias: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The gradients of the sum, of the weight and of the bias."""
    shape = total.shape[total.dim() - rows.axes :]

    def made(wanted: bool) -> Tensor | None:
        return torch.zeros(shape, dtype=total.dtype, device="cpu") if wanted else None

    d_total, d_weight, d_bias = _like(total), made(of_weight), made(of_bias)
    g, m, t, u, w = _arrays(dz, more, total, moments, weight)
    a, b, c = _arrays(d_total, d_weight, d_bias)
    _norm_gradients(g, m, t, u, w, a, b, c, rows.of(total), _threads())
    return d_total, d_weight, d_bias


# --- In PyTorch's operations, which can be derived again and transformed


def _unit(total: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """The rows without weight and bias, and their inverse deviations."""
    axes = list(range(-rows.axes, 0))
    centred = total if rows.rms else total - total.mean(axes, keepdim=True)
    inverse = (centred.square().mean(axes, keepdim=True) + rows.eps).rsqrt()
    return centred * inverse, inverse


def _normalised(total: Tensor, weight: Tensor | None, bias: Tensor | None, rows: Rows) -> Tensor:
    z, _ = _unit(total, rows)
    z = z if weight is None else z * weight
    return z if bias is None else z + bias


def _gradients(
    dz: Tensor, total: Tensor, weight: Tensor | None, rows: Rows
) -> tuple[Tensor, Tensor, Tensor]:
    axes, others = list(range(-rows.axes, 0)), list(range(total.dim() - rows.axes))
    dz = dz.to(total.dtype)
    unit, inverse = _unit(total, rows)
    slope = dz if weight is None else dz * weight
    d_total = slope - unit * (slope * unit).mean(axes, keepdim=True)
    if not rows.rms:
        d_total = d_total - slope.mean(axes, keepdim=True)

    def over_rows(x: Tensor) -> Tensor:
        return x.sum(others) if others else x

    return d_total * inverse, over_rows(dz * unit), over_rows(dz)


# --- The straight road


class DropoutAddNorm(torch.autograd.Function):
    """Keeps the sum, two numbers of each row, and the key or the bits. All but x is of the dtype computed in."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        call: Call,
        rows: Rows,
        save: bool,
    ) -> tuple[Tensor, Tensor]:
        z, total, moments, bits = _run(x, residual, weight, bias, call, rows, save)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(total, weight)
        ctx.kept = call, rows, moments, bits, x.dtype
        return z, total

    @staticmethod
    def backward(ctx: Any, dz: Tensor | None, d_total: Tensor | None) -> Any:
        total, weight = ctx.saved_tensors
        call, rows, moments, bits, dtype = ctx.kept
        of_x, of_residual, of_weight, of_bias = ctx.needs_input_grad[:4]
        d_weight = d_bias = None
        if dz is not None:
            more = () if d_total is None else (d_total,)
            if _is_plain(dz, total, weight, *more) and all(map(_ops.is_ordinary, more)):
                wanted = of_weight, of_bias
                d_total, d_weight, d_bias = _run_gradients(
                    dz, d_total, total, moments, weight, rows, *wanted
                )
            else:
                of_rows, d_weight, d_bias = _gradients(dz, total, weight, rows)
                d_total = of_rows if d_total is None else d_total + of_rows
        dx = None
        if of_x and d_total is not None:
            dx = _derivative(d_total, call, bits).to(dtype)
        return (
            dx,
            d_total if of_residual else None,
            d_weight if of_weight else None,
            d_bias if of_bias else None,
            None,
            None,
            None,
        )


# --- The road past compilers

_library.define(
    "dropout_add_norm(Tensor x, Tensor residual, Tensor? weight, Tensor? bias, Tensor key, Tensor rate,"
    " int axes, float eps, bool rms, int[] shard) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    "dropout_add_norm_backward(Tensor dz, Tensor more, Tensor total, Tensor moments, Tensor? weight,"
    " int axes, float eps, bool rms) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _kernel(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    key: Tensor,
    rate: Tensor,
    axes: int,
    eps: float,
    rms: bool,
    shard: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        call = _call(key, rate, shard)
        return _run(x, residual, weight, bias, call, Rows(axes, eps, rms), False)[:3]


def _backward_kernel(
    dz: Tensor,
    more: Tensor,
    total: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    axes: int,
    eps: float,
    rms: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    with torch.no_grad():
        rows = Rows(axes, eps, rms)
        return _run_gradients(dz, more, total, moments, weight, rows, True, True)


_library.impl("dropout_add_norm", _kernel, "CPU")
_library.impl("dropout_add_norm_backward", _backward_kernel, "CPU")


@torch.library.register_fake("sorix::dropout_add_norm", lib=_library)
def _fake(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    key: Tensor,
    rate: Tensor,
    axes: int,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    count = math.prod(x.shape[: x.dim() - axes])
    moments = x.new_empty((count, 2), dtype=torch.float64)
    return x.new_empty(x.shape), x.new_empty(x.shape, dtype=wide(x.dtype)), moments


@torch.library.register_fake("sorix::dropout_add_norm_backward", lib=_library)
def _fake_backward(
    dz: Tensor,
    more: Tensor,
    total: Tensor,
    moments: Tensor,
    weight: Tensor | None,
    axes: int,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    row = total.shape[total.dim() - axes :]
    return total.new_empty(total.shape), total.new_empty(row), total.new_empty(row)


class TracedNorm(torch.autograd.Function):
    """``sorix::dropout_add_norm`` with its gradients, for compilers."""

    @staticmethod
    def forward(
        x: Tensor,
        residual: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        key: Tensor,
        rate: Tensor,
        axes: int,
        eps: float,
        rms: bool,
        shard: tuple[int, ...],
    ) -> tuple[Tensor, Tensor, Tensor]:
        return torch.ops.sorix.dropout_add_norm(
            x, residual, weight, bias, key, rate, axes, eps, rms, shard
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, _, weight, _, key, rate, axes, eps, rms, shard = inputs
        _, total, moments = output
        ctx.mark_non_differentiable(moments)
        ctx.kept = axes, eps, rms, shard, x.dtype
        if weight is None:
            ctx.save_for_backward(total, moments, key, rate)
        else:
            ctx.save_for_backward(total, moments, key, rate, weight)

    @staticmethod
    def backward(ctx: Any, dz: Tensor, more: Tensor, _: Any) -> Any:
        total, moments, key, rate, *weights = ctx.saved_tensors
        axes, eps, rms, shard, dtype = ctx.kept
        weight = weights[0] if weights else None
        d_total, d_weight, d_bias = torch.ops.sorix.dropout_add_norm_backward(
            dz, more, total, moments, weight, axes, eps, rms
        )
        dx = torch.ops.sorix.dropout(d_total, key, rate, 0, SCALE, shard).to(dtype)
        if not ctx.needs_input_grad[2]:
            d_weight = None
        if not ctx.needs_input_grad[3]:
            d_bias = None
        return dx, d_total, d_weight, d_bias, None, None, None, None, None, None


# --- The function


def add_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    rows: Rows,
    draw: Draw,
) -> tuple[Tensor, Tensor]:
    """The normalised ``residual + dropout(x)``, and that sum."""
    of_sum = wide(x.dtype)
    residual = residual.to(of_sum)
    weight = None if weight is None else weight.to(of_sum)
    bias = None if bias is None else bias.to(of_sum)
    tensors = [tensor for tensor in (x, residual, weight, bias) if tensor is not None]
    if _compiled(*tensors):
        key, rate, part = draw.traced(x.shape)
        z, total, _ = TracedNorm.apply(x, residual, weight, bias, key, rate, *rows, part)
        return z, total
    if not torch.compiler.is_compiling() and _straight(*tensors):
        call = draw.call(x.shape)
        if _records(*tensors):
            save = draw.save and x.requires_grad
            z, total = DropoutAddNorm.apply(x, residual, weight, bias, call, rows, save)
            return z, total
        return _run(x, residual, weight, bias, call, rows, False)[:2]
    dropped = x.to(of_sum)
    if draw.p != 0.0 or draw.rate is not None:
        dropped = draw.drop(dropped)
    total = residual + dropped
    return _normalised(total, weight, bias, rows).to(x.dtype), total


def undrawn() -> Draw:
    """That nothing is dropped, and no key drawn."""
    return Draw(0.0, (0, 0), None, None, "key")


def check_norm(norm: str, eps: float) -> None:
    """That there is such a normalisation."""
    if norm not in ("layer", "rms"):
        raise ValueError(f"norm: expected 'layer' or 'rms', got {norm!r}")
    if not 0.0 <= eps < math.inf:
        raise ValueError(f"eps: expected a finite number, at least 0, got {eps}")


def check_tensors(
    input: Tensor,
    residual: Tensor,
    shape: tuple[int, ...],
    weight: Tensor | None,
    bias: Tensor | None,
) -> None:
    """That shapes, dtypes and devices fit."""
    if not shape or tuple(input.shape[-len(shape) :]) != shape:
        got = tuple(input.shape)
        raise ValueError(f"input: expected a shape that ends in {shape}, got {got}")
    for name, tensor, expected in (
        ("residual", residual, input.shape),
        ("weight", weight, shape),
        ("bias", bias, shape),
    ):
        if tensor is not None:
            # Each of the dtype of the input, or of the one that it is computed in.
            of_sum = wide(input.dtype)
            dtype = of_sum if tensor.dtype is of_sum else input.dtype
            functional.check_like(name, input, tensor, expected, dtype)


def dropout_add_norm(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | list[int] | tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    p: float = 0.5,
    training: bool = True,
    *,
    norm: Literal["layer", "rms"] = "layer",
    eps: float = 1e-5,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> tuple[Tensor, Tensor]:
    """The normalised ``residual + dropout(input)``, and that sum, in one pass over memory.

    In the prenorm form of a transformer the sum is the next residual; in the postnorm form the normalised one is.
    For float16 and bfloat16 the sum is float32, and mean and variance are those of the numbers as doubles. The sum
    is kept for backward, two numbers of each row, and the mask. Not in training it is the same pass without a
    dropout."""
    functional._check_call(input, p)
    check_norm(norm, eps)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    check_tensors(input, residual, shape, weight, bias)
    draw = Draw(p, key, generator, shard, save_mask) if training and p > 0.0 else undrawn()
    rows = Rows(len(shape), float(eps), norm == "rms")
    return add_norm(input, residual, weight, bias, rows, draw)


_documented(
    dropout_add_norm,
    """
    residual : torch.Tensor
        Of the shape and device of the input, and of its dtype, or float32 for 16 bits.
    normalized_shape : int or sequence of int
        The lengths of the last axes that are normalised, as for ``torch.nn.functional.layer_norm``.
    weight, bias : torch.Tensor, optional
        What each normalised row is multiplied by, and what is added then; of these axes, and of the dtype of the
        input or float32 for 16 bits.
    norm : {"layer", "rms"}
        Mean 0 and variance 1, or a mean of squares of 1.
    eps : float
        Is added to the variance, or to the mean of squares.""",
    """    >>> x, residual = torch.tensor([[1.0, 3.0]]), torch.tensor([[10.0, 20.0]])
    >>> sorix.torch.dropout_add_norm(x, residual, 2, p=0.5, eps=0.0, key=(42, 0))
    (tensor([[-1.,  1.]]), tensor([[12., 26.]]))
    """,
)
