"""Attention with dropout that never holds its matrix: the kernel, the operation that it is, its gradients, and the
function."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import Shard
from .._sorix import _attention, _attention_gradients
from . import _functional as functional
from . import _ops
from ._fused import Draw, _compiled, _records, _straight
from ._fused_ops import _is_plain
from ._norm import _arrays, _like, undrawn, wide
from ._ops import Key, _array, _library, _threads, _transform


class Options(NamedTuple):
    """What stands beside query, key and value: as the native half takes it."""

    is_causal: bool
    scale: float | None
    enable_gqa: bool
    p: float
    seed: int
    offset: int
    shard: tuple[int, ...] | None
    threads: int


class Inputs(NamedTuple):
    """Query, key and value, and what is added to the scores."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None

    def tensors(self) -> list[Tensor]:
        """Those that there are."""
        return [x for x in self if x is not None]

    def scores(self) -> tuple[int, ...]:
        """The shape of the matrix."""
        return (*self.query.shape[:-1], self.key.shape[-2])

    def fit(self, enable_gqa: bool) -> bool:
        """Whether the kernel has a form for shapes and dtypes; for others PyTorch has a form or an error."""
        query, key, value, attn_mask = self
        if min(query.dim(), key.dim(), value.dim()) < 2 or key.shape[:-1] != value.shape[:-1]:
            return False
        if query.shape[-1] != key.shape[-1] or not query.dtype == key.dtype == value.dtype:
            return False
        if query.shape[:-2] != key.shape[:-2]:
            if not enable_gqa or query.dim() < 3 or query.shape[:-3] != key.shape[:-3]:
                return False
            if key.shape[-3] == 0 or query.shape[-3] % key.shape[-3] != 0:
                return False
        if attn_mask is None:
            return True
        dtypes = (torch.bool, query.dtype, wide(query.dtype))
        lengths = reversed(attn_mask.shape)
        pairs = zip(lengths, reversed(self.scores()), strict=False)
        fits = attn_mask.dim() <= query.dim() and all(a in (1, b) for a, b in pairs)
        return fits and attn_mask.dtype in dtypes

    def additive(self) -> "Inputs":
        """The same with a mask that is added, which one of bool is not."""
        mask = self.attn_mask
        if mask is None or mask.dtype is not torch.bool:
            return self
        zeros = torch.zeros_like(mask, dtype=self.query.dtype)
        added = zeros.masked_fill(mask.logical_not(), -math.inf)
        return Inputs(self.query, self.key, self.value, added)

    def apart(self) -> "Inputs":
        """The same as tensors of their own: a compiler takes none twice."""
        query, key, value, attn_mask = self
        if key is query:
            key = key.view_as(key)
        if value is self.query or value is self.key:
            value = value.view_as(value)
        return Inputs(query, key, value, attn_mask)


# --- Kernels


def _run(inputs: Inputs, options: Options, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The result in this dtype, and for each query the logarithm of the sum of the exponentials of its scores; not
    recorded. Gradients want both in the dtype that is computed in."""
    query, _, value, _ = inputs
    out = query.new_empty((*query.shape[:-1], value.shape[-1]), dtype=dtype)
    sums = query.new_empty(query.shape[:-1], dtype=wide(query.dtype))
    *arrays, attn_mask = _arrays(*inputs)
    _attention(arrays, attn_mask, options, _array(out), _array(sums))
    return out, sums


def _run_gradients(
    inputs: Inputs, options: Options, result: tuple[Tensor, Tensor, Tensor], wanted: list[bool]
) -> list[Tensor | None]:
    """The gradients that are wanted of query, key, value and mask."""
    pairs = zip(inputs, wanted, strict=True)
    made = [_like(x) if want and x is not None else None for x, want in pairs]
    *arrays, attn_mask = _arrays(*inputs)
    _attention_gradients(arrays, attn_mask, options, _arrays(*result), _arrays(*made))
    return made


# --- In PyTorch's operations, which can be derived again and transformed


def _by_matrix(
    inputs: Inputs, is_causal: bool, scale: float | None, enable_gqa: bool, draw: Draw
) -> Tensor:
    query, key, value, attn_mask = inputs
    if enable_gqa and query.dim() > 2 and key.shape[-3] != query.shape[-3]:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = 1.0 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
    scores = (query * factor) @ key.transpose(-1, -2)
    if attn_mask is not None:
        scores = scores + attn_mask
    if is_causal:
        ones = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(ones.tril().logical_not(), -math.inf)
    # A query that sees nothing gets zeros, and so do its gradients.
    blind = (scores == -math.inf).all(-1, keepdim=True)
    p = torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)
    if draw.p != 0.0 or draw.rate is not None:
        p = draw.drop(p)
    return p.to(value.dtype) @ value


# --- The straight road


class Attention(torch.autograd.Function):
    """Keeps what it was given, the result, a number for each query, and the key. The result is of the dtype that is
    computed in: what is rounded is not what gradients come from."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        options: Options,
    ) -> Tensor:
        out, sums = _run(Inputs(query, key, value, attn_mask), options, wide(query.dtype))
        ctx.save_for_backward(query, key, value, attn_mask, out, sums)
        ctx.options = options
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        query, key, value, attn_mask, out, sums = ctx.saved_tensors
        options: Options = ctx.options
        wanted = list(ctx.needs_input_grad[:4])
        inputs = Inputs(query, key, value, attn_mask)
        if _is_plain(grad, query, key, value, attn_mask):
            options = options._replace(threads=_threads())
            gradients = _run_gradients(inputs, options, (out, sums, grad), wanted)
            return *gradients, None
        is_causal, scale, enable_gqa, p, seed, offset, _, _ = options
        prng = torch.tensor([seed, offset], dtype=torch.int64, device="cpu")
        draw = Draw(p, prng, None, None, "key", part=options.shard)
        with torch.enable_grad():
            again = _by_matrix(inputs, is_causal, scale, enable_gqa, draw)
        named = [x for x, want in zip(inputs, wanted, strict=True) if want and x is not None]
        found = iter(torch.autograd.grad(again, named, grad, create_graph=True))
        return *(next(found) if want else None for want in wanted), None


# --- The road past compilers

_library.define(
    "attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask, Tensor prng, Tensor rate,"
    " bool is_causal, float? scale, bool enable_gqa, int[] shard) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
_library.define(
    "attention_backward(Tensor grad, Tensor out, Tensor sums, Tensor query, Tensor key, Tensor value,"
    " Tensor? attn_mask, Tensor prng, Tensor rate, bool is_causal, float? scale, bool enable_gqa,"
    " int[] shard) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _options(
    prng: Tensor,
    rate: Tensor,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    shard: list[int],
) -> Options:
    seed, offset = prng.tolist()
    part = tuple(shard) or None
    return Options(is_causal, scale, enable_gqa, rate.item(), seed, offset, part, _threads())


def _kernel(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return _run(Inputs(query, key, value, attn_mask), _options(*options), wide(query.dtype))


def _backward_kernel(
    grad: Tensor,
    out: Tensor,
    sums: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    *options: Any,
) -> tuple[Tensor | None, ...]:
    with torch.no_grad():
        inputs = Inputs(query, key, value, attn_mask)
        result = out, sums, grad
        wanted = [True, True, True, False]
        return tuple(_run_gradients(inputs, _options(*options), result, wanted)[:3])


_library.impl("attention", _kernel, "CPU")
_library.impl("attention_backward", _backward_kernel, "CPU")


@torch.library.register_fake("sorix::attention", lib=_library)
def _fake(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    dtype = wide(query.dtype)
    out = query.new_empty((*query.shape[:-1], value.shape[-1]), dtype=dtype)
    return out, query.new_empty(query.shape[:-1], dtype=dtype)


@torch.library.register_fake("sorix::attention_backward", lib=_library)
def _fake_backward(
    grad: Tensor,
    out: Tensor,
    sums: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *_: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


class TracedAttention(torch.autograd.Function):
    """``sorix::attention`` with its gradients, for compilers."""

    @staticmethod
    def forward(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None,
        prng: Tensor,
        rate: Tensor,
        is_causal: bool,
        scale: float | None,
        enable_gqa: bool,
        shard: tuple[int, ...],
    ) -> tuple[Tensor, Tensor]:
        return torch.ops.sorix.attention(
            query, key, value, attn_mask, prng, rate, is_causal, scale, enable_gqa, shard
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        query, key, value, attn_mask, prng, rate, *kept = inputs
        out, sums = output
        ctx.mark_non_differentiable(sums)
        ctx.kept = kept
        masks = [] if attn_mask is None else [attn_mask]
        ctx.save_for_backward(out, sums, query, key, value, prng, rate, *masks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        out, sums, query, key, value, prng, rate, *masks = ctx.saved_tensors
        attn_mask = masks[0] if masks else None
        gradients = torch.ops.sorix.attention_backward(
            grad, out, sums, query, key, value, attn_mask, prng, rate, *ctx.kept
        )
        pairs = zip(gradients, ctx.needs_input_grad[:3], strict=True)
        return *(x if want else None for x, want in pairs), *[None] * 7


# --- The function


def attend(
    inputs: Inputs, is_causal: bool, scale: float | None, enable_gqa: bool, draw: Draw
) -> Tensor:
    """Attention with the dropout of a draw."""
    if inputs.fit(enable_gqa):
        inputs = inputs.additive()
        tensors = inputs.tensors()
        compiling = torch.compiler.is_compiling()
        if not compiling and _straight(*tensors):
            seed, offset, p, _, _, shard = draw.call(inputs.scores())
            options = Options(is_causal, scale, enable_gqa, p, seed, offset, shard, _threads())
            dtype = inputs.query.dtype
            if _records(*tensors):
                result: Tensor = Attention.apply(*inputs, options)
                return result.to(dtype)
            return _run(inputs, options, dtype)[0]
        mask = inputs.attn_mask
        # The operation for compilers has no gradient of a mask.
        fixed = mask is None or not (mask.requires_grad and torch.is_grad_enabled())
        traced = not compiling and _transform() is None and all(map(_ops.is_traced, tensors))
        if fixed and (traced or _compiled(*tensors)):
            prng, rate, part = draw.traced(inputs.scores())
            of_call = is_causal, scale, enable_gqa, part
            out, _ = TracedAttention.apply(*inputs.apart(), prng, rate, *of_call)
            return out.to(inputs.query.dtype)
    return _by_matrix(inputs.additive(), is_causal, scale, enable_gqa, draw)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    dropout_key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
) -> Tensor:
    """``dropout(softmax(scale * query keyᵀ + attn_mask)) value``, without the matrix ever being in memory.

    Arguments as for ``torch.nn.functional.scaled_dot_product_attention``, and as there dropout is on whatever the
    mode of a module: give 0 in eval. The mask of the dropout is the one that a tensor of the shape of the scores,
    ``[..., H, L, S]``, would get by :func:`dropout` with the same key. For backward the inputs are kept, the result
    (of float16 and bfloat16 as float32), a number for each query, and the key; the probabilities and the mask are
    made again. A query that sees no key gets zeros, and so do its gradients.

    Gradients of gradients, ``torch.func``'s transforms and shapes that only broadcast have the matrix made, by
    PyTorch's operations and the same mask; so has a mask that requires a gradient in compiled code.

    Parameters
    ----------
    query, key, value : torch.Tensor
        Of shapes ``[..., H, L, E]``, ``[..., H, S, E]`` and ``[..., H, S, Ev]``, of one dtype of float16, bfloat16,
        float32 or float64.
    attn_mask : torch.Tensor, optional
        Broadcasts to the scores: of bool, true for the keys that a query sees; or added to them, of the dtype of the
        query or the one that is computed in. It may be given beside ``is_causal``, and require a gradient.
    dropout_p : float
        The probability of dropping, in [0, 1].
    is_causal : bool
        Whether query i sees keys 0 to i alone.
    scale : float, optional
        By default one over the square root of E.
    enable_gqa : bool
        Whether neighbouring heads of the query may share a head of key and value.
    dropout_key : (int, int) or torch.Tensor, optional
        Seed and offset of the mask, each in [0, 2**64), or the same bits as a tensor of two int64; by default drawn
        from the generator.
    generator : torch.Generator, optional
        Where the key comes from; by default PyTorch's own.
    shard : sorix.Shard, optional
        Which part of larger scores these are, where heads or queries are cut among workers.

    Examples
    --------
    >>> import torch
    >>> import sorix.torch
    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> sorix.torch.scaled_dot_product_attention(x, x, x, dropout_p=0.5, is_causal=True, dropout_key=(42, 0))[0]
    tensor([2., 4.])
    """
    functional._checked(dropout_p)
    for name, x in (("query", query), ("key", key), ("value", value)):
        functional.check_tensor(name, x)
    if attn_mask is not None:
        functional.check_tensor("attn_mask", attn_mask)
        if attn_mask.dtype not in (torch.bool, query.dtype, wide(query.dtype)):
            raise TypeError(
                f"attn_mask: expected bool, {query.dtype} or {wide(query.dtype)}, got {attn_mask.dtype}"
            )
    on = dropout_p > 0.0
    draw = Draw(dropout_p, dropout_key, generator, shard, "key") if on else undrawn()
    return attend(Inputs(query, key, value, attn_mask), is_causal, scale, enable_gqa, draw)
