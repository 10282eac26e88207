"""Kernels that do something else in the pass of a dropout, the operations of PyTorch that they are, and their
gradients.

An ordinary tensor goes straight to a kernel, and a compiler sees an operation. Whatever else stands between, a
transform, a mode, a tangent, sees a dropout and PyTorch's own operations: see :mod:`._fused`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._sorix import _act_draw, _act_gradient, _bias_draw, _swiglu_draw, _swiglu_gradients
from . import _ops
from ._ops import SCALE, UNSCALED, Call, _array, _derivative, _library, _row_major, _threads

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")


def activate(activation: str, x: Tensor) -> Tensor:
    """PyTorch's own."""
    if activation == "relu":
        return F.relu(x)
    if activation == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if activation == "gelu_tanh" else "none")


def _activate_backward(activation: str, grad: Tensor, x: Tensor) -> Tensor:
    """In PyTorch's operations, which can be derived again."""
    if activation == "silu":
        return _silu_backward(grad, x)
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    x = _near(x, _FAR_OF_GELU)
    result: Tensor = torch.ops.aten.gelu_backward(grad, x, approximate=approximate)
    return result


def _silu_backward(grad: Tensor, x: Tensor) -> Tensor:
    # PyTorch's own operation of this name cannot be derived.
    x = _near(x, _FAR_OF_SILU)
    sigmoid = torch.sigmoid(x)
    return grad * (sigmoid * (1.0 + x * (1.0 - sigmoid)))


def _silu(x: Tensor) -> Tensor:
    """PyTorch's own, with the limit at minus infinity."""
    return torch.where(x > _FAR_OF_SILU, x, F.silu(_near(x, _FAR_OF_SILU)))


# From here on the derivatives are those of the asymptotes, in every dtype.
_FAR_OF_GELU, _FAR_OF_SILU = 40.0, 800.0


def _near(x: Tensor, far: float) -> Tensor:
    """The same up to there, and beyond it a constant: PyTorch's formulas overflow, or multiply zero by infinity.
    NaN stays."""
    return torch.where(x.abs() > far, x.detach().clamp(-far, far), x)


def row_sum(x: Tensor) -> Tensor:
    """Over all axes but the last: the gradient of a bias."""
    return x.sum(list(range(x.dim() - 1))) if x.dim() > 1 else x


def _is_plain(grad: Tensor, *saved: Tensor | None) -> bool:
    """Whether a gradient can be computed by a kernel: nobody stands between, and nobody derives it again."""
    if not _ops.is_ordinary(grad) or _ops._has_tangent(grad):
        return False
    tensors = [grad, *(x for x in saved if x is not None)]
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def _kept_alone(x: Tensor, call: Call) -> Tensor:
    """What is kept, as it is, and zero elsewhere: with that, NaN in what is dropped does not get into products."""
    seed, offset, p, shared, _, shard = call
    return _derivative(x, (seed, offset, p, shared, UNSCALED, shard))


# --- The straight road


def _run_act(
    x: Tensor, bias: Tensor | None, activation: str, call: Call, save: bool
) -> tuple[Tensor, Any]:
    seed, offset, p, _, _, shard = call
    read = _array(x.contiguous())
    row = None if bias is None else _array(bias.contiguous())

    def kernel(y: Any) -> Any:
        return _act_draw(read, row, y, activation, p, seed, offset, shard, save, _threads())

    return _row_major(x, kernel)


def _run_act_gradient(
    grad: Tensor, x: Tensor | None, bias: Tensor | None, activation: str, call: Call, bits: Any
) -> Tensor:
    seed, offset, p, _, _, shard = call
    dy = _array(grad.contiguous())
    read = None if x is None else _array(x.contiguous())
    row = None if bias is None else _array(bias.contiguous())

    def kernel(dx: Any) -> None:
        _act_gradient(dy, read, row, dx, activation, p, seed, offset, shard, bits, _threads())

    return _row_major(grad, kernel)[0]


class ActDropout(torch.autograd.Function):
    """Of a rectifier the bits are kept, and of the others the input, and the key or the bits."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, activation: str, call: Call, save: bool
    ) -> Tensor:
        decides = activation == "relu"
        y, bits = _run_act(x, bias, activation, call, save or decides)
        ctx.kept = activation, call, bits
        if not decides:
            ctx.save_for_backward(x, bias)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        activation, call, bits = ctx.kept
        x, bias = (None, None) if activation == "relu" else ctx.saved_tensors
        if _is_plain(grad, x, bias):
            dx = _run_act_gradient(grad, x, bias, activation, call, bits)
        elif x is None:
            # Linear in the gradient, by bits that are no function of it.
            keep = _bools(bits, grad)
            p = call[2]
            scale = 1.0 / (1.0 - p) if p < 1.0 else 0.0
            dx = torch.where(keep, grad * scale, 0.0)
        else:
            sums = _kept_alone(x if bias is None else x + bias, call)
            dx = _derivative(_activate_backward(activation, grad, sums), call)
        of_bias = row_sum(dx) if ctx.needs_input_grad[1] else None
        return dx if ctx.needs_input_grad[0] else None, of_bias, None, None, None


def _bools(bits: Any, like: Tensor) -> Tensor:
    """The bits of a mask as a tensor of bool."""
    shifts = torch.arange(8, dtype=torch.uint8, device="cpu")
    flat = (torch.from_numpy(bits)[:, None] >> shifts & 1).flatten()[: like.numel()]
    return flat.bool().reshape(like.shape)


def _run_swiglu(gate: Tensor, up: Tensor, call: Call, save: bool) -> tuple[Tensor, Any]:
    seed, offset, p, _, _, shard = call
    a, b = _array(gate.contiguous()), _array(up.contiguous())

    def kernel(y: Any) -> Any:
        return _swiglu_draw(a, b, y, p, seed, offset, shard, save, _threads())

    return _row_major(gate, kernel)


def _run_swiglu_gradients(
    grad: Tensor, gate: Tensor, up: Tensor, call: Call, bits: Any, of_gate: bool, of_up: bool
) -> tuple[Tensor | None, Tensor | None]:
    seed, offset, p, _, _, shard = call
    dy, a, b = (_array(x.contiguous()) for x in (grad, gate, up))

    def made(wanted: bool) -> Tensor | None:
        memory = torch.contiguous_format
        return torch.empty_like(grad, memory_format=memory) if wanted else None

    outputs = made(of_gate), made(of_up)
    da, db = (None if x is None else _array(x) for x in outputs)
    _swiglu_gradients(dy, a, b, da, db, p, seed, offset, shard, bits, _threads())
    return outputs


class SwigluDropout(torch.autograd.Function):
    """Keeps gate and up, and the key or the bits."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, call: Call, save: bool) -> Tensor:
        y, bits = _run_swiglu(gate, up, call, save)
        ctx.kept = call, bits
        ctx.save_for_backward(gate, up)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        call, bits = ctx.kept
        gate, up = ctx.saved_tensors
        of_gate, of_up = ctx.needs_input_grad[:2]
        if _is_plain(grad, gate, up):
            gradients = _run_swiglu_gradients(grad, gate, up, call, bits, of_gate, of_up)
            return *gradients, None, None
        gate, up, grad = (
            _kept_alone(gate, call),
            _kept_alone(up, call),
            _derivative(grad, call),
        )
        d_gate = _silu_backward(grad * up, gate) if of_gate else None
        return d_gate, grad * _silu(gate) if of_up else None, None, None


def _run_bias_add(
    x: Tensor, bias: Tensor, residual: Tensor, call: Call, save: bool
) -> tuple[Tensor, Any]:
    seed, offset, p, _, _, shard = call
    a, b, r = (_array(tensor.contiguous()) for tensor in (x, bias, residual))

    def kernel(y: Any) -> Any:
        return _bias_draw(a, b, r, y, p, seed, offset, shard, save, _threads())

    return _row_major(x, kernel)


class BiasDropoutAdd(torch.autograd.Function):
    """Keeps the key or the bits; the gradient of the residual is that of the sum."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor, residual: Tensor, call: Call, save: bool
    ) -> Tensor:
        y, bits = _run_bias_add(x, bias, residual, call, save)
        ctx.kept = call, bits
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        of_x, of_bias, of_residual = ctx.needs_input_grad[:3]
        dx = _derivative(grad, *ctx.kept) if of_x or of_bias else None
        d_bias = row_sum(dx) if dx is not None and of_bias else None
        return dx if of_x else None, d_bias, grad if of_residual else None, None, None


# --- The road past compilers

_library.define(
    "act_dropout(Tensor x, Tensor? bias, Tensor key, Tensor rate, str activation, int[] shard)"
    " -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    "act_dropout_backward(Tensor grad, Tensor? x, Tensor? bias, Tensor bits, Tensor key, Tensor rate,"
    " str activation, int[] shard) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    "swiglu_dropout(Tensor gate, Tensor up, Tensor key, Tensor rate, int[] shard) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    "swiglu_dropout_backward(Tensor grad, Tensor gate, Tensor up, Tensor key, Tensor rate, int[] shard)"
    " -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    "bias_dropout_add(Tensor x, Tensor bias, Tensor residual, Tensor key, Tensor rate, int[] shard)"
    " -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _call(key: Tensor, rate: Tensor, shard: list[int]) -> Call:
    seed, offset = key.tolist()
    return seed, offset, rate.item(), 0, SCALE, tuple(shard) or None


def _act_kernel(
    x: Tensor, bias: Tensor | None, key: Tensor, rate: Tensor, activation: str, shard: list[int]
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        call = _call(key, rate, shard)
        y, bits = _run_act(x, bias, activation, call, activation == "relu")
    none = torch.empty(0, dtype=torch.uint8, device="cpu")
    return y, none if bits is None else torch.from_numpy(bits)


def _act_backward_kernel(
    grad: Tensor,
    x: Tensor | None,
    bias: Tensor | None,
    bits: Tensor,
    key: Tensor,
    rate: Tensor,
    activation: str,
    shard: list[int],
) -> Tensor:
    with torch.no_grad():
        words = bits.numpy() if activation == "relu" else None
        call = _call(key, rate, shard)
        return _run_act_gradient(grad, x, bias, activation, call, words)


def _swiglu_kernel(gate: Tensor, up: Tensor, key: Tensor, rate: Tensor, shard: list[int]) -> Tensor:
    with torch.no_grad():
        return _run_swiglu(gate, up, _call(key, rate, shard), False)[0]


def _swiglu_backward_kernel(
    grad: Tensor, gate: Tensor, up: Tensor, key: Tensor, rate: Tensor, shard: list[int]
) -> tuple[Tensor | None, Tensor | None]:
    with torch.no_grad():
        call = _call(key, rate, shard)
        return _run_swiglu_gradients(grad, gate, up, call, None, True, True)


def _bias_add_kernel(
    x: Tensor, bias: Tensor, residual: Tensor, key: Tensor, rate: Tensor, shard: list[int]
) -> Tensor:
    with torch.no_grad():
        return _run_bias_add(x, bias, residual, _call(key, rate, shard), False)[0]


_library.impl("act_dropout", _act_kernel, "CPU")
_library.impl("act_dropout_backward", _act_backward_kernel, "CPU")
_library.impl("swiglu_dropout", _swiglu_kernel, "CPU")
_library.impl("swiglu_dropout_backward", _swiglu_backward_kernel, "CPU")
_library.impl("bias_dropout_add", _bias_add_kernel, "CPU")


@torch.library.register_fake("sorix::act_dropout", lib=_library)
def _fake_act(
    x: Tensor, bias: Tensor | None, key: Tensor, rate: Tensor, activation: str, shard: list[int]
) -> tuple[Tensor, Tensor]:
    # Whole words of eight bytes.
    size = (x.numel() + 63) // 64 * 8 if activation == "relu" else 0
    return torch.empty_like(x), x.new_empty(size, dtype=torch.uint8)


@torch.library.register_fake("sorix::act_dropout_backward", lib=_library)
def _fake_act_backward(grad: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(grad)


@torch.library.register_fake("sorix::swiglu_dropout", lib=_library)
def _fake_swiglu(gate: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(gate)


@torch.library.register_fake("sorix::swiglu_dropout_backward", lib=_library)
def _fake_swiglu_backward(grad: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return grad.new_empty(grad.shape), grad.new_empty(grad.shape)


@torch.library.register_fake("sorix::bias_dropout_add", lib=_library)
def _fake_bias_add(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


class TracedAct(torch.autograd.Function):
    """``sorix::act_dropout`` with its gradients, for compilers."""

    @staticmethod
    def forward(
        x: Tensor,
        bias: Tensor | None,
        key: Tensor,
        rate: Tensor,
        activation: str,
        shard: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        return torch.ops.sorix.act_dropout(x, bias, key, rate, activation, shard)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        x, bias, key, rate, activation, shard = inputs
        bits = output[1]
        ctx.mark_non_differentiable(bits)
        ctx.kept = activation, shard
        if activation == "relu":
            ctx.save_for_backward(bits, key, rate)
        elif bias is None:
            ctx.save_for_backward(bits, key, rate, x)
        else:
            ctx.save_for_backward(bits, key, rate, x, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        bits, key, rate, *inputs = ctx.saved_tensors
        activation, shard = ctx.kept
        x = inputs[0] if inputs else None
        bias = inputs[1] if len(inputs) > 1 else None
        dx = torch.ops.sorix.act_dropout_backward(grad, x, bias, bits, key, rate, activation, shard)
        return dx, row_sum(dx) if ctx.needs_input_grad[1] else None, None, None, None, None


class TracedSwiglu(torch.autograd.Function):
    """``sorix::swiglu_dropout`` with its gradients, for compilers."""

    @staticmethod
    def forward(
        gate: Tensor, up: Tensor, key: Tensor, rate: Tensor, shard: tuple[int, ...]
    ) -> Tensor:
        return torch.ops.sorix.swiglu_dropout(gate, up, key, rate, shard)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.shard = inputs[4]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        inputs = ctx.saved_tensors
        d_gate, d_up = torch.ops.sorix.swiglu_dropout_backward(grad, *inputs, ctx.shard)
        return d_gate, d_up, None, None, None


class TracedBiasAdd(torch.autograd.Function):
    """``sorix::bias_dropout_add`` with its gradients, for compilers."""

    @staticmethod
    def forward(
        x: Tensor,
        bias: Tensor,
        residual: Tensor,
        key: Tensor,
        rate: Tensor,
        shard: tuple[int, ...],
    ) -> Tensor:
        return torch.ops.sorix.bias_dropout_add(x, bias, residual, key, rate, shard)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[3:5])
        ctx.shard = inputs[5]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dx = torch.ops.sorix.dropout(grad, *ctx.saved_tensors, 0, SCALE, ctx.shard)
        return dx, row_sum(dx) if ctx.needs_input_grad[1] else None, grad, None, None, None
