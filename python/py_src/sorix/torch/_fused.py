"""What is done in the pass of a dropout, as functions.

Where a kernel cannot be used, because of a transform, a mode, or forward-mode gradients, they are a dropout by the
same mask and PyTorch's own operations, which all of these know.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import Shard
from . import _functional as functional
from . import _fused_ops, _ops
from ._functional import SaveMask
from ._fused_ops import activate
from ._ops import SCALE, UNSCALED, Call, Key

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


@dataclass
class Draw:
    """Where the mask of a call comes from: the arguments that all functions have.

    ``rate`` is ``p`` as a tensor, for compiled graphs; ``part`` a shard as the native half takes it."""

    p: float
    key: Key | None
    generator: torch.Generator | None
    shard: Shard | None
    save_mask: SaveMask
    rate: Tensor | None = None
    part: tuple[int, ...] | None = None

    @property
    def save(self) -> bool:
        """Whether bits are kept."""
        return self.save_mask == "bits"

    def call(self, shape: tuple[int, ...]) -> Call:
        """For the straight road, of what has this shape."""
        part = self._part(shape)
        seed, offset = _ops.key_numbers(self.key, self.generator)
        return seed, offset, self.p, 0, SCALE, part

    def traced(self, shape: tuple[int, ...]) -> tuple[Tensor, Tensor, tuple[int, ...]]:
        """For compilers: key, rate and shard, of what has this shape."""
        rate = _ops.rate_tensor(self.p) if self.rate is None else self.rate
        part = self._part(shape)
        return _ops.key_tensor(self.key, self.generator), rate, part or ()

    def _part(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        return self.part if self.shard is None else _ops.shard_of(self.shard, shape, 0)

    def fixed(self, *tensors: Tensor) -> "Draw":
        """The same with a key that is drawn, if the tensors can be dropped from by one."""
        if not all(_ops.is_traced(x) for x in tensors):
            return self
        key = _ops.key_tensor(self.key, self.generator)
        return replace(self, key=key, generator=None)

    def drop(self, x: Tensor, form: int = SCALE) -> Tensor:
        """The dropout by itself."""
        if self.part is not None:
            key, rate, part = self.traced(x.shape)
            y: Tensor = _ops.Transformed.apply(x, key, rate, 0, form, part)
            return y
        return functional.drop(
            x,
            self.p,
            form=form,
            key=self.key,
            generator=self.generator,
            shard=self.shard,
            save_mask=self.save_mask,
            rate=self.rate,
        )

    def kept_alone(self, x: Tensor) -> Tensor:
        """What will be kept, and zero for the rest, whose NaN would get into gradients otherwise; of a draw
        that is :meth:`fixed`."""
        return self.drop(x, UNSCALED) if isinstance(self.key, Tensor) else x


def _straight(*tensors: Tensor) -> bool:
    """Whether a kernel can be called at once. Its functions have no forward-mode gradients."""
    return all(_ops.is_ordinary(x) and not _ops._has_tangent(x) for x in tensors)


def _compiled(*tensors: Tensor) -> bool:
    return torch.compiler.is_compiling() and all(_ops.is_traced(x) for x in tensors)


def _records(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)


def act(x: Tensor, bias: Tensor | None, activation: str, draw: Draw) -> Tensor:
    """Dropout of an activation, in training."""
    tensors = (x,) if bias is None else (x, bias)
    if not torch.compiler.is_compiling():
        if draw.p == 0.0:
            return activate(activation, x if bias is None else x + bias)
        if _straight(*tensors):
            call = draw.call(x.shape)
            if _records(*tensors):
                y: Tensor = _fused_ops.ActDropout.apply(x, bias, activation, call, draw.save)
                return y
            return _fused_ops._run_act(x, bias, activation, call, False)[0]
    elif _compiled(*tensors):
        key, rate, part = draw.traced(x.shape)
        y, _ = _fused_ops.TracedAct.apply(x, bias, key, rate, activation, part)
        return y
    draw = draw.fixed(*tensors)
    sums = draw.kept_alone(x if bias is None else x + bias)
    return draw.drop(activate(activation, sums))


def swiglu(gate: Tensor, up: Tensor, draw: Draw) -> Tensor:
    """Dropout of a gated activation, in training."""
    if not torch.compiler.is_compiling():
        if draw.p == 0.0:
            return F.silu(gate) * up
        if _straight(gate, up):
            call = draw.call(gate.shape)
            if _records(gate, up):
                y: Tensor = _fused_ops.SwigluDropout.apply(gate, up, call, draw.save)
                return y
            return _fused_ops._run_swiglu(gate, up, call, False)[0]
    elif _compiled(gate, up):
        y = _fused_ops.TracedSwiglu.apply(gate, up, *draw.traced(gate.shape))
        return y
    draw = draw.fixed(gate, up)
    return draw.drop(F.silu(draw.kept_alone(gate)) * draw.kept_alone(up))


def bias_add(x: Tensor, bias: Tensor, residual: Tensor, draw: Draw) -> Tensor:
    """Dropout of a sum, added to a residual, in training."""
    tensors = x, bias, residual
    if not torch.compiler.is_compiling():
        if draw.p == 0.0:
            return residual + (x + bias)
        if _straight(*tensors):
            call = draw.call(x.shape)
            if _records(*tensors):
                save = draw.save and (x.requires_grad or bias.requires_grad)
                y: Tensor = _fused_ops.BiasDropoutAdd.apply(*tensors, call, save)
                return y
            return _fused_ops._run_bias_add(*tensors, call, False)[0]
    elif _compiled(*tensors):
        y = _fused_ops.TracedBiasAdd.apply(*tensors, *draw.traced(x.shape))
        return y
    return residual + draw.drop(x + bias)


def check_activation(activation: str) -> None:
    """That there is one of this name."""
    if activation not in _fused_ops.ACTIVATIONS:
        names = ", ".join(map(repr, _fused_ops.ACTIVATIONS))
        raise ValueError(f"activation: expected one of {names}, got {activation!r}")


def act_dropout(
    input: Tensor,
    activation: Activation,
    p: float = 0.5,
    training: bool = True,
    *,
    bias: Tensor | None = None,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """``dropout(activation(input + bias))`` in one pass over memory.

    16 bits are rounded once. Of ``"relu"`` one bit for each element is kept for backward, and nothing else,
    whatever ``save_mask`` says; of the others input and bias, too. With ``p=0``, and not in training, it is
    PyTorch's activation."""
    functional._check_call(input, p)
    check_activation(activation)
    if bias is not None:
        functional.check_like("bias", input, bias, input.shape[-1:])
    if not training:
        return activate(activation, input if bias is None else input + bias)
    return act(input, bias, activation, Draw(p, key, generator, shard, save_mask))


def swiglu_dropout(
    gate: Tensor,
    up: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """``dropout(silu(gate) * up)`` in one pass over memory.

    16 bits are rounded once. Gate and up are kept for backward, and the mask. With ``p=0``, and not in training,
    it is the product by PyTorch."""
    functional.check_tensor("gate", gate)
    functional.check_tensor("up", up)
    functional._checked(p)
    functional.check_like("up", gate, up)
    if not training:
        return F.silu(gate) * up
    return swiglu(gate, up, Draw(p, key, generator, shard, save_mask))


def bias_dropout_add(
    input: Tensor,
    bias: Tensor,
    residual: Tensor,
    p: float = 0.5,
    training: bool = True,
    *,
    key: Key | None = None,
    generator: torch.Generator | None = None,
    shard: Shard | None = None,
    save_mask: SaveMask = "key",
) -> Tensor:
    """``residual + dropout(input + bias)`` in one pass over memory.

    Arguments in the order of Megatron-LM's function of this name. 16 bits are rounded once. The gradient of the
    bias is PyTorch's sum of that of the input over all axes but the last, and that of the residual the gradient
    of the result itself."""
    functional._check_call(input, p)
    functional.check_like("bias", input, bias, input.shape[-1:])
    functional.check_like("residual", input, residual)
    if not training:
        return residual + (input + bias)
    return bias_add(input, bias, residual, Draw(p, key, generator, shard, save_mask))


_BIAS = """
    bias : torch.Tensor{}
        Of the dtype and device of the input, as long as its last axis."""


def _documented(function: Any, more: str, example: str) -> None:
    examples = (
        f"\n    Examples\n    --------\n    >>> import torch\n    >>> import sorix.torch\n{example}"
    )
    parameters = functional._PARAMETERS.format(more, "").rstrip() + "\n"
    function.__doc__ = (function.__doc__ or "") + parameters + examples


_documented(
    act_dropout,
    """
    activation : {"relu", "gelu", "gelu_tanh", "silu"}
        What is computed; "gelu" is the exact form, "gelu_tanh" the approximation."""
    + _BIAS.format(", optional"),
    """    >>> x = torch.tensor([1.0, -1.0, 3.0, 4.0])
    >>> sorix.torch.act_dropout(x, "relu", 0.5, key=(42, 0))
    tensor([2., 0., 0., 8.])
    """,
)
_documented(
    bias_dropout_add,
    _BIAS.format("") + functional._RESIDUAL,
    """    >>> x, bias, residual = torch.ones(2, 2), torch.tensor([0.5, -0.5]), torch.full((2, 2), 10.0)
    >>> sorix.torch.bias_dropout_add(x, bias, residual, 0.5, key=(42, 0))
    tensor([[13., 11.],
            [10., 11.]])
    """,
)
_documented(
    swiglu_dropout,
    """
    up : torch.Tensor
        Of the shape, dtype and device of the gate.""",
    """    >>> gate, up = torch.full((4,), 800.0), torch.tensor([1.0, 2.0, 3.0, 4.0])
    >>> sorix.torch.swiglu_dropout(gate, up, 0.5, key=(42, 0))
    tensor([1600., 3200.,    0., 6400.])
    """,
)
swiglu_dropout.__doc__ = (swiglu_dropout.__doc__ or "").replace("input : torch", "gate : torch")
