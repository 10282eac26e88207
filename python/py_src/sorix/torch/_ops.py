"""From tensors to kernels: what a call is, which tensors it can be done on, and its gradients.

There are two roads to a kernel. An ordinary tensor of a program that runs as it is written goes straight
to it. Whatever stands between, a compiler, a transform, a mode, sees an operation of PyTorch,
``sorix::dropout``, and goes by that. Both make the same masks.
"""

import threading
import warnings
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .. import Shard
from .._sorix import _apply, _draw

# What becomes of the elements: as the native half numbers them.
SCALE = 0
ALPHA = 1
_ALPHA_DERIVATIVE = 2
UNSCALED = 3
_DERIVATIVE = (SCALE, _ALPHA_DERIVATIVE, _ALPHA_DERIVATIVE, UNSCALED)

DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})

_LOW, _HIGH = -(2**63), 2**63 - 1

_ORDINARY = (Tensor, torch.nn.Parameter)


# Of a thread: the innermost transform of torch.func, the number of modes, what torch.jit.trace writes to.
_transform = torch._C._functorch.peek_interpreter_stack
_modes = torch._C._len_torch_dispatch_stack
_tracing_state = torch._C._get_tracing_state
_dispatch_keys = torch._C._dispatch_keys
# Older ones have no number for a set of keys, but a text.
_raw = getattr(torch._C.DispatchKeySet, "raw_repr", str)

# A small tensor takes as long as what is looked up and called for it.
_bfloat16 = torch.bfloat16
_empty_like = torch.empty_like
_is_grad_enabled = torch.is_grad_enabled
_threads = torch.get_num_threads


def _ordinary_keys() -> frozenset[Any]:
    """The dispatch keys of tensors that are dense, on a CPU, and nothing else."""
    with torch.inference_mode(False):
        plain = torch.empty(0, device="cpu")
    with torch.inference_mode():
        inference = torch.empty(0, device="cpu")
    return frozenset(_raw(_dispatch_keys(x)) for x in (plain, inference))


_ORDINARY_KEYS = _ordinary_keys()


def is_ordinary(x: Tensor) -> bool:
    """Whether a tensor's elements lie in memory for us to read, and nobody stands between."""
    return (
        type(x) in _ORDINARY
        and _raw(_dispatch_keys(x)) in _ORDINARY_KEYS
        and x.dtype in DTYPES
        and _transform() is None
        and _modes() == 0
        and _tracing_state() is None
    )


def is_traced(x: Tensor) -> bool:
    """Whether a tensor stands for one that the operation can be done on."""
    if x.device.type != "cpu" or x.dtype not in DTYPES or x.layout is not torch.strided:
        return False
    if _tracing_state() is not None or x.is_nested or x.is_quantized:
        return False
    # Under torch.compile the class is what it will be when the graph runs.
    return torch.compiler.is_compiling() or type(x) in _ORDINARY or type(x) in _stand_ins()


def _stand_ins() -> tuple[type, ...]:
    from torch._subclasses.fake_tensor import FakeTensor
    from torch._subclasses.functional_tensor import FunctionalTensor

    return (FakeTensor, FunctionalTensor)


Call = tuple[int, int, float, int, int, tuple[int, ...] | None]
"""What is drawn: seed and offset as signed numbers, p, ``shared``, form, shard.

Bit i of ``shared`` is set if all indices of axis i share a decision. A shard is the axis of the mask that is
cut, start and stop, and the shape of the whole mask.
"""


Key = tuple[int, int] | Tensor
"""Seed and offset: two numbers from 0 to 2^64 - 1, or the same bits as a tensor of two int64."""


def _signed(number: int) -> int:
    if not 0 <= number < 2**64:
        raise ValueError(f"key: expected a seed and an offset from 0 to 2**64 - 1, got {number}")
    return number - 2**64 if number > _HIGH else number


class _Drawn(threading.local):
    """Memory for a key, kept by each thread: to make a tensor takes longer than to fill one."""

    def __init__(self) -> None:
        with torch.inference_mode(False):
            self.key = torch.empty(2, dtype=torch.int64, device="cpu")


_drawn = _Drawn()


def key_numbers(key: Key | None, generator: torch.Generator | None) -> list[int]:
    """The key of an ordinary call, as signed numbers; drawn if there is none."""
    if key is None:
        if generator is None:
            # Of PyTorch's own generator, which a checkpoint puts back.
            return _drawn.key.random_(_LOW, _HIGH).tolist()
        _check_not_recomputed()
        return _drawn.key.random_(_LOW, _HIGH, generator=generator).tolist()
    _check_alone(generator)
    if isinstance(key, Tensor):
        _check_key(key)
        return key.tolist()
    seed, offset = _pair(key)
    return [_signed(seed), _signed(offset)]


def key_tensor(key: Key | None, generator: torch.Generator | None) -> Tensor:
    """The key of a call that something stands between, as a tensor; drawn if there is none."""
    if key is None:
        if generator is not None and not torch.compiler.is_compiling():
            _check_not_recomputed()
        # The numbers that an ordinary call would draw.
        return torch.randint(
            _LOW, _HIGH, (2,), dtype=torch.int64, device="cpu", generator=generator
        )
    _check_alone(generator)
    if isinstance(key, Tensor):
        _check_key(key)
        return key
    seed, offset = _pair(key)
    return torch.tensor([_signed(seed), _signed(offset)], dtype=torch.int64, device="cpu")


def _check_alone(generator: torch.Generator | None) -> None:
    if generator is not None:
        raise ValueError("expected a key or a generator, got both")


def _pair(key: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(key, (tuple, list)) or len(key) != 2:
        raise TypeError(f"key: expected a seed and an offset, got {key!r}")
    return key


def _check_key(key: Tensor) -> None:
    if key.dtype != torch.int64 or key.shape != (2,):
        raise ValueError(
            f"key: expected a tensor of two int64, got {key.dtype} of shape {tuple(key.shape)}"
        )


def _check_not_recomputed() -> None:
    """Within backward a forward is one that a checkpoint makes again, with PyTorch's generator put back to
    where it was the first time. Other generators are not."""
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            "a dropout with a generator of its own was computed again by torch.utils.checkpoint, which puts"
            " back PyTorch's generator alone: it would drop others than the first time. Leave generator=None,"
            " or give a key"
        )


def rate_tensor(p: float) -> Tensor:
    """A probability as a tensor, which a compiled graph takes as an input."""
    return torch.full((), p, dtype=torch.float64, device="cpu")


# --- Kernels


def _array(x: Tensor) -> Any:
    # numpy has no bfloat16.
    return x.view(torch.uint16).numpy() if x.dtype is _bfloat16 else x.numpy()


def _mask_shape(shape: tuple[int, ...], shared: int) -> list[int] | None:
    if not shared:
        return None
    return [1 if shared >> axis & 1 else length for axis, length in enumerate(shape)]


def _order(x: Tensor, shared: int) -> list[int] | None:
    """An order of the axes in which a tensor's elements lie in memory one after another, and the decisions
    in that of the mask; None if there is none."""
    strides = x.stride()
    order = sorted(range(x.dim()), key=lambda axis: -strides[axis])
    own = [axis for axis in order if not shared >> axis & 1 and x.shape[axis] != 1]
    if own == sorted(own) and x.permute(order).is_contiguous():
        return order
    return None


def _run(x: Tensor, call: Call) -> Tensor:
    """Drops from an ordinary tensor; not recorded."""
    seed, offset, p, shared, form, shard = call
    if x.is_contiguous():
        # What takes longest here is to call Python's functions: there are as few as can be.
        y = _empty_like(x)
        mask = _mask_shape(x.shape, shared) if shared else None
        threads = _threads()
        if x.dtype is _bfloat16:
            _draw(_array(x), None, _array(y), p, seed, offset, mask, form, shard, False, threads)
        else:
            _draw(x.numpy(), None, y.numpy(), p, seed, offset, mask, form, shard, False, threads)
        return y

    def kernel(x: Any, y: Any, mask: list[int] | None) -> None:
        _draw(x, None, y, p, seed, offset, mask, form, shard, False, _threads())

    return _written(x, shared, kernel)


def _run_saving(x: Tensor, call: Call) -> tuple[Tensor, Any]:
    """The same, and the bits of the mask."""
    seed, offset, p, shared, form, shard = call
    bits = None

    def kernel(x: Any, y: Any, mask: list[int] | None) -> None:
        nonlocal bits
        bits = _draw(x, None, y, p, seed, offset, mask, form, shard, True, _threads())

    return _written(x, shared, kernel), bits


def _run_bits(x: Tensor, bits: Any, call: Call) -> Tensor:
    """The gradient by these bits."""
    _, _, p, shared, form, _ = call

    def kernel(x: Any, y: Any, mask: list[int] | None) -> None:
        _apply(x, y, p, bits, mask, form, _threads())

    return _written(x, shared, kernel)


def _run_add(x: Tensor, residual: Tensor, call: Call, save: bool) -> tuple[Tensor, Any]:
    """Drops from an ordinary tensor and adds another one; not recorded. And the bits of the mask, if they are
    to be saved."""
    seed, offset, p, shared, form, shard = call
    mask = _mask_shape(x.shape, shared)

    def kernel(a: Tensor, b: Tensor, y: Any, mask: list[int] | None) -> Any:
        arrays = _array(a), _array(b), y
        return _draw(*arrays, p, seed, offset, mask, form, shard, save, _threads())

    if mask is not None and not x.is_contiguous() and x.stride() == residual.stride():
        order, y = _order(x, shared), _empty_like(x)
        if order is not None and x.stride() == y.stride():
            inputs = x.permute(order), residual.permute(order)
            permuted = [mask[axis] for axis in order]
            return y, kernel(*inputs, _array(y.permute(order)), permuted)
    inputs = x.contiguous(), residual.contiguous()
    return _row_major(x, lambda y: kernel(*inputs, y, mask))


def _row_major(x: Tensor, kernel: Callable[[Any], Any]) -> tuple[Tensor, Any]:
    """A new tensor, of the strides that PyTorch would give one like this, that the kernel writes in row-major
    order; and what the kernel returns."""
    y = _empty_like(x)
    row_major = y if y.is_contiguous() else _empty_like(x, memory_format=torch.contiguous_format)
    returned = kernel(_array(row_major))
    return (y if row_major is y else y.copy_(row_major)), returned


def _written(
    x: Tensor, shared: int, kernel: Callable[[Any, Any, list[int] | None], None]
) -> Tensor:
    """A new tensor, of the strides that PyTorch would give it, that the kernel writes."""
    y = _empty_like(x)
    mask = _mask_shape(x.shape, shared)
    if x.is_contiguous():
        kernel(_array(x), _array(y), mask)
        return y
    order = _order(x, shared) if mask is not None else None
    if order is not None and mask is not None and x.stride() == y.stride():
        permuted = [mask[axis] for axis in order]
        kernel(_array(x.permute(order)), _array(y.permute(order)), permuted)
        return y
    row_major = x.contiguous()
    if y.is_contiguous():
        kernel(_array(row_major), _array(y), mask)
        return y
    kernel(_array(row_major), None, mask)
    return y.copy_(row_major)


# --- The straight road


class Dropout(torch.autograd.Function):
    """Keeps the key for backward, which makes the mask again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call) -> Tensor:
        ctx.call = call
        return _run(x, call)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return _derivative(grad, ctx.call), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _derivative(tangent, ctx.call)


def _derivative(grad: Tensor, call: Call, bits: Any = None) -> Tensor:
    """The gradient of the input from that of the output: by the bits, if they were saved and will do."""
    seed, offset, p, shared, form, shard = call
    if form == ALPHA:
        form = _ALPHA_DERIVATIVE
        call = seed, offset, p, shared, form, shard
    if not is_ordinary(grad):
        key = torch.tensor([seed, offset], dtype=torch.int64, device="cpu")
        result: Tensor = Transformed.apply(grad, key, rate_tensor(p), shared, form, shard or ())
        return result
    if (_is_grad_enabled() and grad.requires_grad) or _has_tangent(grad):
        result = Dropout.apply(grad, call)
        return result
    return _run(grad, call) if bits is None else _run_bits(grad, bits, call)


class DropoutBits(torch.autograd.Function):
    """Keeps the bits of the mask for backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call) -> Tensor:
        y, bits = _run_saving(x, call)
        ctx.kept = call, bits
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        call, bits = ctx.kept
        return _derivative(grad, call, bits), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return _derivative(tangent, ctx.kept[0])


class DropoutAdd(torch.autograd.Function):
    """Keeps the key or the bits; the gradient of the residual is that of the sum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, call: Call, save: bool) -> Tensor:
        y, bits = _run_add(x, residual, call, save)
        ctx.kept = call, bits
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        dx = _derivative(grad, *ctx.kept) if ctx.needs_input_grad[0] else None
        return dx, grad, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, of_residual: Tensor, *_: None) -> Tensor:
        return _derivative(tangent, ctx.kept[0]) + of_residual


def drop_add(x: Tensor, residual: Tensor, call: Call, save_mask: Literal["key", "bits"]) -> Tensor:
    """Drops from an ordinary tensor and adds another one, and is recorded if either requires a gradient."""
    if _is_recorded(x) or _is_recorded(residual):
        save = save_mask == "bits" and x.requires_grad
        result: Tensor = DropoutAdd.apply(x, residual, call, save)
        return result
    return _run_add(x, residual, call, False)[0]


def drop(x: Tensor, call: Call, save_mask: Literal["key", "bits"]) -> Tensor:
    """Drops from an ordinary tensor, and is recorded if it requires a gradient."""
    if _is_recorded(x):
        function = Dropout if save_mask == "key" else DropoutBits
        result: Tensor = function.apply(x, call)
        return result
    return _run(x, call)


def _is_recorded(x: Tensor) -> bool:
    return (x.requires_grad and _is_grad_enabled()) or _has_tangent(x)


def _has_tangent(x: Tensor) -> bool:
    # Without a level there are no tangents to look for, which takes longer.
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(x).tangent is not None


def drop_(x: Tensor, call: Call) -> Tensor:
    """The same over the tensor itself."""
    if _is_recorded(x) or not x.is_contiguous():
        # The copy checks that the tensor may be written, before it is, and rewrites its history.
        return x.copy_(drop(x, call, "key"))
    seed, offset, p, shared, form, shard = call
    with torch.no_grad():
        array = _array(x)
    mask = _mask_shape(x.shape, shared)
    _draw(array, None, None, p, seed, offset, mask, form, shard, False, _threads())
    if not x.is_inference():
        # So that whoever kept the tensor for backward finds out.
        torch.autograd.graph.increment_version(x)
    return x


# --- The road past others

_library = torch.library.Library("sorix", "DEF")
_library.define(
    "dropout(Tensor x, Tensor key, Tensor rate, int shared, int form, int[] shard) -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _kernel(
    x: Tensor, key: Tensor, rate: Tensor, shared: int, form: int, shard: list[int]
) -> Tensor:
    seed, offset = key.tolist()
    with torch.no_grad():
        return _run(x, (seed, offset, rate.item(), shared, form, tuple(shard) or None))


_library.impl("dropout", _kernel, "CPU")
_library.define(
    "dropout_add(Tensor x, Tensor residual, Tensor key, Tensor rate, int shared, int form, int[] shard)"
    " -> Tensor",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _kernel_add(
    x: Tensor,
    residual: Tensor,
    key: Tensor,
    rate: Tensor,
    shared: int,
    form: int,
    shard: list[int],
) -> Tensor:
    seed, offset = key.tolist()
    with torch.no_grad():
        call = (seed, offset, rate.item(), shared, form, tuple(shard) or None)
        return _run_add(x, residual, call, False)[0]


_library.impl("dropout_add", _kernel_add, "CPU")


@torch.library.register_fake("sorix::dropout", lib=_library)
def _fake(x: Tensor, key: Tensor, rate: Tensor, shared: int, form: int, shard: list[int]) -> Tensor:
    return torch.empty_like(x)


@torch.library.register_fake("sorix::dropout_add", lib=_library)
def _fake_add(
    x: Tensor,
    residual: Tensor,
    key: Tensor,
    rate: Tensor,
    shared: int,
    form: int,
    shard: list[int],
) -> Tensor:
    return torch.empty_like(x)


class Traced(torch.autograd.Function):
    """``sorix::dropout`` with its gradient, for compilers, which take no more."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        key: Tensor,
        rate: Tensor,
        shared: int,
        form: int,
        shard: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(key, rate)
        ctx.kept = shared, _DERIVATIVE[form], shard
        return torch.ops.sorix.dropout(x, key, rate, shared, form, shard)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        key, rate = ctx.saved_tensors
        shared, form, shard = ctx.kept
        grad = Traced.apply(grad, key, rate, shared, form, shard)
        return grad, None, None, None, None, None


class TracedAdd(torch.autograd.Function):
    """``sorix::dropout_add`` with its gradients, for compilers."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor,
        key: Tensor,
        rate: Tensor,
        shared: int,
        form: int,
        shard: tuple[int, ...],
    ) -> Tensor:
        ctx.save_for_backward(key, rate)
        ctx.kept = shared, _DERIVATIVE[form], shard
        return torch.ops.sorix.dropout_add(x, residual, key, rate, shared, form, shard)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        key, rate = ctx.saved_tensors
        shared, form, shard = ctx.kept
        dx = Traced.apply(grad, key, rate, shared, form, shard)
        return dx, grad, None, None, None, None, None


class Transformed(torch.autograd.Function):
    """The same with all that the transforms of ``torch.func`` ask for."""

    @staticmethod
    def forward(
        x: Tensor, key: Tensor, rate: Tensor, shared: int, form: int, shard: tuple[int, ...]
    ) -> Tensor:
        return torch.ops.sorix.dropout(x, key, rate, shared, form, shard)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, key, rate, shared, form, shard = inputs
        ctx.save_for_backward(key, rate)
        ctx.save_for_forward(key, rate)
        ctx.kept = shared, _DERIVATIVE[form], shard

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return Transformed.jvp(ctx, grad), None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: Any) -> Tensor:
        key, rate = ctx.saved_tensors
        shared, form, shard = ctx.kept
        return Transformed.apply(tangent, key, rate, shared, form, shard)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _by_sample(Transformed, info, in_dims, inputs)


class TransformedAdd(torch.autograd.Function):
    """The same of a sum."""

    @staticmethod
    def forward(
        x: Tensor,
        residual: Tensor,
        key: Tensor,
        rate: Tensor,
        shared: int,
        form: int,
        shard: tuple[int, ...],
    ) -> Tensor:
        return torch.ops.sorix.dropout_add(x, residual, key, rate, shared, form, shard)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        Transformed.setup_context(ctx, inputs[1:], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return Transformed.jvp(ctx, grad), grad, None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, of_residual: Tensor, *_: Any) -> Tensor:
        return Transformed.jvp(ctx, tangent) + of_residual

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        return _by_sample(TransformedAdd, info, in_dims, inputs)


def _by_sample(
    function: type[torch.autograd.Function],
    info: Any,
    in_dims: tuple[int | None, ...],
    inputs: tuple[Any, ...],
) -> tuple[Tensor, int]:
    """A transformed function under ``vmap``: in one call, or sample by sample."""
    *tensors, key, rate, shared, form, shard = inputs
    *dims, key_dim, rate_dim = in_dims[: len(tensors) + 2]
    if key_dim is None and rate_dim is None:
        # One key: a mask that all samples share.
        if shard:
            axis, start, stop, *whole = shard
            shard = (axis + 1, start, stop, 1, *whole)
        batches = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, dims, strict=True)
        ]
        return function.apply(*batches, key, rate, shared << 1 | 1, form, shard), 0
    # A key for each sample, and what it names.
    columns = [
        [tensor] * info.batch_size if dim is None else tensor.unbind(dim)
        for tensor, dim in zip((*tensors, key, rate), (*dims, key_dim, rate_dim), strict=True)
    ]
    rows = [function.apply(*row, shared, form, shard) for row in zip(*columns, strict=True)]
    return torch.stack(rows), 0


# --- What a call becomes

_said: set[str] = set()


def say_once(text: str) -> None:
    """Says that a call went to PyTorch, the first time for this reason."""
    if text not in _said:
        _said.add(text)
        warnings.warn(f"sorix.torch: {text}: PyTorch's own dropout is used", stacklevel=4)


def why_not(x: Tensor) -> str | None:
    """Why a call goes to PyTorch; None where that is a matter of course."""
    if x.device.type != "cpu" or x.dtype not in DTYPES:
        return None
    if _tracing_state() is not None:
        return "torch.jit.trace records operations of PyTorch alone"
    return f"{type(x).__name__} of layout {x.layout} is no ordinary tensor"


def shard_of(shard: Shard, shape: tuple[int, ...], shared: int) -> tuple[int, ...] | None:
    """A worker's part as the native half takes it: of the mask, which is cut as the tensor is."""
    if tuple(shape) != shard.part:
        raise ValueError(f"shard: expected a part of shape {shard.part}, got {tuple(shape)}")
    if shared >> shard.axis & 1:
        # All parts share the decisions along this axis, and along the others each has all of them.
        return None
    whole = _mask_shape(shard.shape, shared)
    return (shard.axis, shard.start, shard.stop, *(whole or shard.shape))
