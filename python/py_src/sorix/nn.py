"""Modules, losses, optimisers and files of parameters.

A module of your own is a class with a ``forward``, whose children and parameters are its attributes:

>>> import sorix
>>> from sorix import nn
>>> class Net(nn.Module):
...     def __init__(self):
...         self.hidden = nn.Linear(3, 16)
...         self.dropout = nn.Dropout(0.1)
...         self.out = nn.Linear(16, 1)
...
...     def forward(self, x):
...         return self.out(self.dropout(self.hidden(x).relu()))
>>> net = Net()
>>> [name for name, _ in net.named_parameters()]
['hidden.weight', 'hidden.bias', 'out.weight', 'out.bias']
>>> net.eval()(sorix.ones((2, 3))).shape
(2, 1)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, Self, TypeAlias, TypeVar

from . import _sorix
from ._grad_mode import no_grad
from ._sorix import (
    DropoutForm,
    Generator,
    RustOptimizer,
    Shard,
    Tensor,
    binary_cross_entropy_with_logits,
    cross_entropy,
    embedding,
    float32,
    layer_norm,
    linear,
    monte_carlo,
    mse_loss,
)
from ._sorix import (
    dtype as DType,
)

__all__ = [
    "GELU",
    "SGD",
    "Adam",
    "AdamW",
    "AlphaDropout",
    "BCEWithLogitsLoss",
    "BroadcastDropout",
    "CrossEntropyLoss",
    "DropBlock2d",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "DropoutAddNorm",
    "Embedding",
    "EmbeddingDropout",
    "FeatureAlphaDropout",
    "GELUDropout",
    "GaussianDropout",
    "LayerNorm",
    "Linear",
    "LockedDropout",
    "MSELoss",
    "Module",
    "Optimizer",
    "Parameter",
    "ReLU",
    "ReLUDropout",
    "Residual",
    "Sequential",
    "SiLU",
    "SiLUDropout",
    "Sigmoid",
    "Softmax",
    "SwiGLU",
    "SwiGLUDropout",
    "Tanh",
    "WeightDropout",
    "binary_cross_entropy_with_logits",
    "clip_grad_norm",
    "clip_grad_value",
    "cross_entropy",
    "embedding",
    "layer_norm",
    "linear",
    "load",
    "monte_carlo",
    "mse_loss",
    "save",
]

ArrayLike: TypeAlias = Any
"""What ``numpy.asarray`` takes; numpy's own type of this name knows nothing of tensors."""

_T = TypeVar("_T")


class Parameter(Tensor):
    """A tensor that an optimiser changes: as the attribute of a module it is one of its parameters.

    Parameters
    ----------
    data : Tensor or array_like
        The elements; those of a tensor are shared.
    dtype : dtype, optional
        By default that of the data.
    requires_grad : bool
        Whether it gathers a gradient; without one, optimisers leave it alone.
    """

    def __new__(
        cls, data: ArrayLike, dtype: DType | None = None, requires_grad: bool = True
    ) -> Self:
        return super().__new__(cls, data, dtype, requires_grad)


class Module:
    """A layer, or a network of layers.

    Attributes that are modules are its children, those that are :class:`Parameter` its parameters; also
    within lists, tuples and dictionaries. ``__init__`` need not call that of this class.
    """

    training: bool = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module makes of its inputs; to be written by each kind of module."""
        raise NotImplementedError(f"{type(self).__name__} has no method 'forward'")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """The modules that are attributes of this one, with their names."""
        for name, value in vars(self).items():
            yield from _within(name, value, Module)

    def children(self) -> Iterator["Module"]:
        """The modules that are attributes of this one."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, "Module"]]:
        """This module and all below it, each once, with the names on the way joined by dots."""
        yield from self._all_modules(prefix, set())

    def _all_modules(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, "Module"]]:
        if id(self) in seen:
            return
        seen.add(id(self))
        yield prefix, self
        for name, child in self.named_children():
            yield from child._all_modules(_joined(prefix, name), seen)

    def modules(self) -> Iterator["Module"]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """The parameters of this module and of all below it, each once, with their names."""
        seen: set[int] = set()
        for name, parameter in self._all_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield name, parameter

    def _all_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """With the second and later names of what is shared."""
        for name, value in vars(self).items():
            yield from _within(name, value, Parameter)
        for prefix, child in self.named_children():
            for name, parameter in child._all_parameters():
                yield _joined(prefix, name), parameter

    def parameters(self) -> list[Parameter]:
        """The parameters of this module and of all below it, each once."""
        return [parameter for _, parameter in self.named_parameters()]

    def train(self, mode: bool = True) -> Self:
        """Puts this module and all below it into training, or into use; returns the module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Puts this module and all below it into use; returns the module."""
        return self.train(False)

    def zero_grad(self) -> None:
        """Clears the gradients of all parameters."""
        for parameter in self.parameters():
            parameter.zero_grad()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Says of all parameters whether they gather a gradient; returns the module."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def state_dict(self) -> dict[str, Tensor]:
        """The parameters by their names, apart from the graph; they share the module's memory."""
        return {name: parameter.detach() for name, parameter in self._all_parameters()}

    def load_state_dict(self, state_dict: Mapping[str, ArrayLike], strict: bool = True) -> None:
        """Writes tensors or arrays over the parameters of the same names.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or array_like
        strict : bool
            Whether the names have to be the same on both sides.

        Raises
        ------
        KeyError
            If names are missing or not known, and ``strict``.
        ValueError, TypeError
            If a shape or a dtype is another one. Nothing is written then.
        """
        own = dict(self._all_parameters())
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        if strict and (missing or unexpected):
            raise KeyError(
                f"load_state_dict: missing names {missing}, unexpected names {unexpected}"
            )
        given = {}
        for name, parameter in own.items():
            if name in state_dict:
                value = state_dict[name]
                value = value if isinstance(value, Tensor) else _sorix.tensor(value)
                if value.shape != parameter.shape:
                    raise ValueError(
                        f"load_state_dict: {name!r}: expected shape {parameter.shape}, got {value.shape}"
                    )
                if value.dtype != parameter.dtype:
                    raise TypeError(
                        f"load_state_dict: {name!r}: expected {parameter.dtype!r}, got {value.dtype!r}"
                    )
                given[name] = value
        with no_grad():
            for name, value in given.items():
                own[name].copy_(value)

    def extra_repr(self) -> str:
        """What stands between the brackets of ``repr`` for a module without children."""
        return ""

    def __repr__(self) -> str:
        lines = []
        for name, child in self.named_children():
            lines.append(f"  ({name}): " + repr(child).replace("\n", "\n  "))
        kind = type(self).__name__
        if not lines:
            return f"{kind}({self.extra_repr()})"
        return "\n".join([f"{kind}(", *lines, ")"])


def _within(name: str, value: object, kind: type[_T]) -> Iterator[tuple[str, _T]]:
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _within(f"{name}.{index}", item, kind)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _within(f"{name}.{key}", item, kind)


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


class Sequential(Module):
    """Modules one after another, each on the output of the one before."""

    def __init__(self, *modules: Module) -> None:
        self._layers = list(modules)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules, named by their places."""
        return ((str(index), module) for index, module in enumerate(self._layers))

    def forward(self, x: Any) -> Any:
        """The output of the last module."""
        for layer in self._layers:
            x = layer(x)
        return x

    def append(self, module: Module) -> Self:
        """Adds a module at the end; returns the sequence."""
        self._layers.append(module)
        return self

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._layers)

    def __getitem__(self, index: int) -> Module:
        return self._layers[index]


class Linear(Module):
    """``x @ weight.T + bias``.

    Parameters
    ----------
    in_features, out_features : int
        The lengths of the last axis of input and output.
    bias : bool
        Whether there is a bias.
    dtype : dtype
        Of weight and bias.
    generator : Generator, optional
        Where their first values come from: uniform in ``±1 / sqrt(in_features)``.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        dtype: DType = float32,
        generator: Generator | None = None,
    ) -> None:
        self.in_features = in_features
        self.out_features = out_features
        drawn, shift = _sorix._new_linear(in_features, out_features, dtype, generator)
        self.weight = Parameter(drawn)
        self.bias = Parameter(shift) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Of an input of shape ``(..., in_features)``."""
        return linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        """The lengths."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"


class LayerNorm(Module):
    """Mean 0 and variance 1 over the last axes, then a scale and a shift.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The lengths of these axes.
    eps : float
        Is added to the variance.
    elementwise_affine : bool
        Whether there are a scale and a shift.
    dtype : dtype
        Of these.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        *,
        dtype: DType = float32,
    ) -> None:
        shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.weight = self.bias = None
        if elementwise_affine:
            self.weight = Parameter(_sorix.ones(shape, dtype=dtype))
            self.bias = Parameter(_sorix.zeros(shape, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Of an input whose last axes have these lengths."""
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Axes and eps."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.weight is not None}"
        )


class Embedding(Module):
    """A table of vectors, looked up by row.

    Parameters
    ----------
    num_embeddings : int
        The number of rows.
    embedding_dim : int
        The length of a row.
    dtype : dtype
        Of the table.
    generator : Generator, optional
        Where its first values come from: normal with variance 1.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        dtype: DType = float32,
        generator: Generator | None = None,
    ) -> None:
        drawn = _sorix._new_embedding(num_embeddings, embedding_dim, dtype, generator)
        self.weight = Parameter(drawn)

    def forward(self, x: ArrayLike) -> Tensor:
        """The rows with these numbers: an array of integers, or a tensor of whole numbers."""
        return embedding(x, self.weight)

    def extra_repr(self) -> str:
        """Rows and their length."""
        return "{}, {}".format(*self.weight.shape)


class ReLU(Module):
    """The larger one of 0 and each element."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x.relu()


class GELU(Module):
    """The Gaussian error linear unit.

    Parameters
    ----------
    approximate : {"none", "tanh"}
        Exact, or by the formula with the hyperbolic tangent.
    """

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x.gelu(self.approximate)


class SiLU(Module):
    """The sigmoid linear unit, ``x / (1 + exp(-x))``, also called swish.

    Examples
    --------
    >>> import sorix
    >>> sorix.nn.SiLU()(sorix.tensor([-800.0, 0.0, 800.0])) * 0.5
    tensor([ -0.,   0., 400.], dtype=sorix.float64)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x.silu()


class SwiGLU(Module):
    """``silu(gate) * up``: the gate is the first half of the last axis, and up the second.

    Examples
    --------
    >>> import sorix
    >>> sorix.nn.SwiGLU()(sorix.tensor([[0.0, 800.0, 5.0, 2.0]]))
    tensor([[   0., 1600.]], dtype=sorix.float64)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape with a last axis of even length."""
        return _sorix._swiglu(x)


class Sigmoid(Module):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x.sigmoid()


class Tanh(Module):
    """The hyperbolic tangent."""

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape."""
        return x.tanh()


class Softmax(Module):
    """``exp(x)`` divided by its sum along an axis.

    Parameters
    ----------
    axis : int
    """

    def __init__(self, axis: int) -> None:
        self.axis = axis

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape with this axis."""
        return x.softmax(self.axis)


class _DropoutBase(Module):
    """What all dropouts have in common.

    In training each call takes one key from the generator; in use it returns its input.
    """

    def __init__(
        self,
        p: float,
        generator: Generator | None,
        save_mask: Literal["bits", "key"],
    ) -> None:
        if save_mask not in ("bits", "key"):
            raise ValueError(f"save_mask: expected 'bits' or 'key', got {save_mask!r}")
        self.p = p
        self.generator = generator
        self.save_mask = save_mask

    @property
    def p(self) -> float:
        """The probability of dropping, in [0, 1]."""
        return self._p

    @p.setter
    def p(self, p: float) -> None:
        self._p = _sorix._check_rate(p)

    def _form(self) -> DropoutForm:
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        *,
        key: tuple[int, int] | None = None,
        shard: Shard | None = None,
    ) -> Tensor:
        """Drops from a tensor.

        Parameters
        ----------
        x : Tensor
        key : (int, int), optional
            Seed and offset of the mask, for an answer that can be repeated: drops in use too, and takes
            nothing from the generator.
        shard : Shard, optional
            Which part of a larger tensor ``x`` is: it gets the part of the mask of that one.
        """
        return _sorix._dropout(
            x,
            self._form(),
            self.p,
            self.training,
            self.generator,
            self.save_mask == "key",
            key,
            shard,
        )

    def forward_add(self, x: Tensor, residual: Tensor, bias: Tensor | None = None) -> Tensor:
        """``residual + dropout(x + bias)``; of a :class:`Dropout` and a :class:`DropPath` in one pass over memory.

        Parameters
        ----------
        x : Tensor
        residual : Tensor
            Of the shape and dtype of what is added to it.
        bias : Tensor, optional
            Of the dtype of ``x``, as long as its last axis.

        Examples
        --------
        >>> import sorix
        >>> dropout, x = sorix.nn.Dropout(0.5, generator=sorix.Generator(42)), sorix.ones(4)
        >>> dropout.forward_add(x, sorix.full(4, 10.0))
        tensor([12., 12., 10., 12.], dtype=sorix.float32)
        >>> dropout.eval().forward_add(x, sorix.full(4, 10.0))
        tensor([11., 11., 11., 11.], dtype=sorix.float32)
        """
        return _sorix._dropout(
            x,
            self._form(),
            self.p,
            self.training,
            self.generator,
            self.save_mask == "key",
            None,
            None,
            bias,
            residual,
        )

    def extra_repr(self) -> str:
        """The probability, and what is not as by default."""
        return f"p={self.p}"


_PARAMETERS = """
    Parameters
    ----------
    p : float
        The probability of dropping, in [0, 1].{}
    generator : Generator, optional
        Where keys come from; by default the generator of the process.
    save_mask : {{"bits", "key"}}
        What is kept for backward: a bit for each decision, or the 16 bytes from which they are made again.
    """


_ACTIVATED = """
    Examples
    --------
    >>> import sorix
    >>> from sorix import nn
    >>> fused = nn.{0}Dropout(0.5, generator=sorix.Generator(42))
    >>> apart = nn.Sequential(nn.{0}(), nn.Dropout(0.5, generator=sorix.Generator(42)))
    >>> x = sorix.tensor([[-1.0, 2.0], [3.0, -4.0]])
    >>> bool((fused(x).data == apart(x).data).all())
    True
    """


class Dropout(_DropoutBase):
    __doc__ = (
        "Drops each element with probability ``p`` and multiplies the others by ``1 / (1 - p)``.\n"
        + _PARAMETERS.format("")
    )

    def __init__(
        self,
        p: float = 0.5,
        *,
        generator: Generator | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> None:
        super().__init__(p, generator, save_mask)

    def _form(self) -> DropoutForm:
        return DropoutForm.elements()


class _ChannelDropout(_DropoutBase):
    _spatial: int

    def __init__(
        self,
        p: float = 0.5,
        *,
        channels_last: bool = False,
        generator: Generator | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> None:
        super().__init__(p, generator, save_mask)
        self.channels_last = channels_last

    def _form(self) -> DropoutForm:
        return DropoutForm.channels(self._spatial, self.channels_last)

    def extra_repr(self) -> str:
        """The probability, and the layout if it is not the usual one."""
        return f"p={self.p}" + (", channels_last=True" if self.channels_last else "")


_CHANNELS_LAST = """
    channels_last : bool
        Whether the channels are the last axis, and not the one before the spatial ones."""


class Dropout1d(_ChannelDropout):
    __doc__ = "Drops whole channels of ``(N, C, L)`` or ``(C, L)``.\n" + _PARAMETERS.format(
        _CHANNELS_LAST
    )
    _spatial = 1


class Dropout2d(_ChannelDropout):
    __doc__ = "Drops whole channels of ``(N, C, H, W)`` or ``(C, H, W)``.\n" + _PARAMETERS.format(
        _CHANNELS_LAST
    )
    _spatial = 2


class Dropout3d(_ChannelDropout):
    __doc__ = (
        "Drops whole channels of ``(N, C, D, H, W)`` or ``(C, D, H, W)``.\n"
        + _PARAMETERS.format(_CHANNELS_LAST)
    )
    _spatial = 3


class AlphaDropout(Dropout):
    __doc__ = (
        "Dropout that keeps mean 0 and variance 1, for self-normalising networks.\n"
        + _PARAMETERS.format("")
    )

    def _form(self) -> DropoutForm:
        return DropoutForm.alpha()


class FeatureAlphaDropout(Dropout):
    __doc__ = "Alpha dropout of whole channels.\n" + _PARAMETERS.format("")

    def _form(self) -> DropoutForm:
        return DropoutForm.feature_alpha()


class GaussianDropout(Dropout):
    __doc__ = (
        "Multiplies by numbers of mean 1 and variance ``p / (1 - p)``.\n" + _PARAMETERS.format("")
    )

    def _form(self) -> DropoutForm:
        return DropoutForm.gaussian()


class DropPath(_DropoutBase):
    __doc__ = "Drops whole samples: stochastic depth.\n" + _PARAMETERS.format(
        """
    scale_by_keep : bool
        Whether to multiply what is kept by ``1 / (1 - p)``.
    per_batch : bool
        Whether to keep or drop the whole batch, and not each sample by itself."""
    )

    def __init__(
        self,
        p: float = 0.5,
        scale_by_keep: bool = True,
        *,
        per_batch: bool = False,
        generator: Generator | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> None:
        super().__init__(p, generator, save_mask)
        self.scale_by_keep = scale_by_keep
        self.per_batch = per_batch

    def _form(self) -> DropoutForm:
        return DropoutForm.paths(self.per_batch, self.scale_by_keep)


class LockedDropout(_DropoutBase):
    __doc__ = "One mask for all steps of a sequence.\n" + _PARAMETERS.format(
        """
    time_axis : int
        The axis of the steps."""
    )

    def __init__(
        self,
        p: float = 0.5,
        *,
        time_axis: int = 0,
        generator: Generator | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> None:
        super().__init__(p, generator, save_mask)
        self.time_axis = time_axis

    def _form(self) -> DropoutForm:
        return DropoutForm.locked(self.time_axis)


class BroadcastDropout(_DropoutBase):
    __doc__ = "One decision for all indices of some axes.\n" + _PARAMETERS.format(
        """
    noise_shape : sequence of int or None
        The shape of the mask: None is the length of the input's axis.
    shared_axes : sequence of int
        Instead: the axes along which decisions are shared."""
    )

    def __init__(
        self,
        p: float = 0.5,
        *,
        noise_shape: Sequence[int | None] | None = None,
        shared_axes: Sequence[int] | None = None,
        generator: Generator | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> None:
        if (noise_shape is None) == (shared_axes is None):
            raise ValueError("expected noise_shape or shared_axes, and not both")
        super().__init__(p, generator, save_mask)
        self.noise_shape = noise_shape
        self.shared_axes = shared_axes

    def _form(self) -> DropoutForm:
        if self.noise_shape is not None:
            return DropoutForm.noise_shape(self.noise_shape)
        return DropoutForm.shared_along(self.shared_axes or [])


class DropBlock2d(_DropoutBase):
    __doc__ = "Drops squares of ``(N, C, H, W)``.\n" + _PARAMETERS.format(
        """
    block_size : int
        The length of a side."""
    )

    def __init__(
        self,
        p: float = 0.5,
        block_size: int = 7,
        *,
        generator: Generator | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> None:
        super().__init__(p, generator, save_mask)
        self.block_size = block_size

    def _form(self) -> DropoutForm:
        return DropoutForm.blocks(self.block_size)


class ReLUDropout(Dropout):
    __doc__ = (
        "A rectifier and then a dropout, in one pass over memory; in use the rectifier. Keeps one bit for each\n"
        "element for backward, whatever ``save_mask`` says.\n"
        + _PARAMETERS.format("")
        + _ACTIVATED.format("ReLU")
    )

    def _form(self) -> DropoutForm:
        return DropoutForm.relu()


class GELUDropout(_DropoutBase):
    __doc__ = (
        "A GELU and then a dropout, in one pass over memory; in use the GELU.\n"
        + _PARAMETERS.format(
            """
    approximate : {"none", "tanh"}
        Exact, or by the formula with the hyperbolic tangent."""
        )
        + _ACTIVATED.format("GELU")
    )

    def __init__(
        self,
        p: float = 0.5,
        approximate: Literal["none", "tanh"] = "none",
        *,
        generator: Generator | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> None:
        super().__init__(p, generator, save_mask)
        DropoutForm.gelu(approximate)
        self.approximate: Literal["none", "tanh"] = approximate

    def _form(self) -> DropoutForm:
        return DropoutForm.gelu(self.approximate)

    def extra_repr(self) -> str:
        """The probability and the formula."""
        return f"p={self.p}, approximate={self.approximate!r}"


class SiLUDropout(Dropout):
    __doc__ = (
        "A SiLU and then a dropout, in one pass over memory; in use the SiLU.\n"
        + _PARAMETERS.format("")
        + _ACTIVATED.format("SiLU")
    )

    def _form(self) -> DropoutForm:
        return DropoutForm.silu()


class SwiGLUDropout(Dropout):
    __doc__ = (
        "``dropout(silu(gate) * up)`` in one pass over memory; in use :class:`SwiGLU`. The gate is the first half\n"
        "of the last axis, and up the second. If they are two tensors, :meth:`sorix.Tensor.swiglu_dropout` saves\n"
        "the cut.\n"
        + _PARAMETERS.format("")
        + """
    Examples
    --------
    >>> import sorix
    >>> layer = sorix.nn.SwiGLUDropout(0.5, generator=sorix.Generator(42))
    >>> layer(sorix.tensor([800.0, 800.0, 800.0, 1.0, 2.0, 3.0]))
    tensor([1600., 3200.,    0.], dtype=sorix.float64)
    """
    )

    def _form(self) -> DropoutForm:
        return DropoutForm.swiglu()


class Residual(Module):
    """``x + dropout(block(x))``, the sum made in the pass of the dropout.

    Parameters
    ----------
    block : Module
        Whose output has the shape and dtype of its input.
    dropout : Module
        A dropout: of elements it is a sublayer of a transformer, a :class:`DropPath` one that stochastic depth
        skips.

    Examples
    --------
    >>> import sorix
    >>> from sorix import nn
    >>> block = nn.Residual(nn.ReLU(), nn.Dropout(0.5, generator=sorix.Generator(42)))
    >>> block(sorix.ones(4))
    tensor([3., 3., 1., 3.], dtype=sorix.float32)
    >>> block.eval()(sorix.ones(4))
    tensor([2., 2., 2., 2.], dtype=sorix.float32)
    """

    dropout: _DropoutBase

    def __init__(self, block: Module, dropout: _DropoutBase) -> None:
        if not isinstance(dropout, _DropoutBase):
            raise TypeError(f"dropout: expected a dropout, got {type(dropout).__name__}")
        self.block = block
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """Of what the block takes."""
        return self.dropout.forward_add(self.block(x), x)


class DropoutAddNorm(Module):
    """The normalised ``residual + dropout(x)``, and that sum, in one pass over memory.

    In the prenorm form of a transformer the sum is the next residual; in the postnorm form the normalised one
    is. The sum is float32 for float16 and bfloat16, and the residual may be.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        The lengths of the last axes that are normalised.
    dropout : Dropout
        What drops; a child of the module.
    eps : float
        Is added to the variance, or to the mean of squares.
    norm : {"layer", "rms"}
        :class:`LayerNorm`, with a scale and a shift, or ``x / sqrt(mean(x**2) + eps)`` with a scale alone.
    dtype : dtype
        Of these.

    Examples
    --------
    >>> import sorix
    >>> from sorix import nn
    >>> dropout = nn.Dropout(0.5, generator=sorix.Generator(42))
    >>> layer = nn.DropoutAddNorm(2, dropout, eps=1e-30)
    >>> z, total = layer(sorix.ones((1, 2)), sorix.tensor([[10.0, 20.0]], dtype="float32"))
    >>> z, total
    (tensor([[-1.,  1.]], dtype=sorix.float32), tensor([[12., 22.]], dtype=sorix.float32))
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        dropout: Dropout,
        eps: float = 1e-5,
        *,
        norm: Literal["layer", "rms"] = "layer",
        dtype: DType = float32,
    ) -> None:
        if type(dropout) is not Dropout:
            raise TypeError(f"dropout: expected a Dropout, got {type(dropout).__name__}")
        if norm not in ("layer", "rms"):
            raise ValueError(f"norm: expected 'layer' or 'rms', got {norm!r}")
        shape = [normalized_shape] if isinstance(normalized_shape, int) else list(normalized_shape)
        self.normalized_shape = tuple(shape)
        self.eps = eps
        self.norm = norm
        self.weight = Parameter(_sorix.ones(shape, dtype=dtype))
        self.bias = Parameter(_sorix.zeros(shape, dtype=dtype)) if norm == "layer" else None
        self.dropout = dropout

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """Of an input whose last axes have these lengths, and a residual of its shape."""
        dropout = self.dropout
        return _sorix._dropout_add_norm(
            x,
            residual,
            self.norm == "rms",
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            dropout.p,
            dropout.training,
            dropout.generator,
            dropout.save_mask == "key",
        )


class WeightDropout(Module):
    """A linear layer whose weights are dropped, one mask for the whole batch.

    Parameters
    ----------
    linear : Linear
    p : float
        The probability of dropping, in [0, 1].
    generator : Generator, optional
        Where keys come from; by default the generator of the process.
    """

    def __init__(
        self, linear: Linear, p: float = 0.5, *, generator: Generator | None = None
    ) -> None:
        self.linear = linear
        self.p = _sorix._check_rate(p)
        self.generator = generator

    def forward(self, x: Tensor) -> Tensor:
        """Of an input of shape ``(..., in_features)``."""
        return _sorix._weight_dropout(
            x,
            self.linear.weight,
            self.linear.bias,
            self.p,
            self.training,
            self.generator,
        )


class EmbeddingDropout(Module):
    """An embedding of whose table whole rows are dropped: a word is dropped everywhere in a batch.

    Parameters
    ----------
    embedding : Embedding
    p : float
        The probability of dropping, in [0, 1].
    generator : Generator, optional
        Where keys come from; by default the generator of the process.
    """

    def __init__(
        self,
        embedding: Embedding,
        p: float = 0.5,
        *,
        generator: Generator | None = None,
    ) -> None:
        self.embedding = embedding
        self.p = _sorix._check_rate(p)
        self.generator = generator

    def forward(self, x: ArrayLike) -> Tensor:
        """The rows with these numbers."""
        return _sorix._embedding_dropout(
            x, self.embedding.weight, self.p, self.training, self.generator
        )


class MSELoss(Module):
    """:func:`mse_loss` as a module."""

    def __init__(self, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Of two tensors of one shape."""
        return mse_loss(input, target, reduction=self.reduction)


class BCEWithLogitsLoss(Module):
    """:func:`binary_cross_entropy_with_logits` as a module."""

    def __init__(self, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Of two tensors of one shape."""
        return binary_cross_entropy_with_logits(input, target, reduction=self.reduction)


class CrossEntropyLoss(Module):
    """:func:`cross_entropy` as a module."""

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        reduction: Literal["mean", "sum", "none"] = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.weight = weight
        self.ignore_index = ignore_index
        self.reduction = reduction
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: ArrayLike) -> Tensor:
        """Of logits of shape ``(examples, classes, ...)`` and the classes as integers."""
        return cross_entropy(
            input,
            target,
            weight=self.weight,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )


Parameters: TypeAlias = Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]]
"""What an optimiser changes: of a module, of a list, or with names."""


def _named(parameters: Parameters) -> list[tuple[str, Tensor]]:
    if isinstance(parameters, Module):
        return list(parameters.named_parameters())
    named: list[tuple[str, Tensor]] = []
    for index, item in enumerate(parameters):
        named.append(item if isinstance(item, tuple) else (str(index), item))
    return named


class Optimizer:
    """What changes parameters by their gradients."""

    def __init__(self, rust: RustOptimizer) -> None:
        self._rust = rust

    def step(self) -> None:
        """Changes each parameter that has a gradient."""
        self._rust.step()

    def zero_grad(self) -> None:
        """Clears the gradients."""
        self._rust.zero_grad()

    @property
    def lr(self) -> float:
        """The learning rate."""
        return self._rust.lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._rust.lr = lr

    def state_dict(self) -> dict[str, Any]:
        """The hyperparameters, and for each parameter the number of steps and what is kept of it."""
        return self._rust.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues where :meth:`state_dict` was taken."""
        self._rust.set_state(state_dict)


class SGD(Optimizer):
    """Stochastic gradient descent.

    Parameters
    ----------
    params : Module, or iterable of Tensor or of (str, Tensor)
    lr : float
        The learning rate.
    momentum, weight_decay : float
    nesterov : bool
        Whether the momentum is Nesterov's.
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(RustOptimizer.sgd(_named(params), lr, momentum, nesterov, weight_decay))


class Adam(Optimizer):
    """Adam.

    Parameters
    ----------
    params : Module, or iterable of Tensor or of (str, Tensor)
    lr : float
        The learning rate.
    betas : (float, float)
    eps, weight_decay : float
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(RustOptimizer.adam(_named(params), lr, betas, eps, weight_decay, False))


class AdamW(Optimizer):
    """Adam with a weight decay apart from the gradient.

    Parameters
    ----------
    params : Module, or iterable of Tensor or of (str, Tensor)
    lr : float
        The learning rate.
    betas : (float, float)
    eps, weight_decay : float
    """

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(RustOptimizer.adam(_named(params), lr, betas, eps, weight_decay, True))


def clip_grad_norm(parameters: Parameters, max_norm: float) -> float:
    """Scales gradients so that their norm, of all together, is at most ``max_norm``; returns what it was."""
    return _sorix._clip_grad_norm(_named(parameters), max_norm)


def clip_grad_value(parameters: Parameters, clip_value: float) -> None:
    """Puts each element of the gradients within ``-clip_value`` and ``clip_value``."""
    _sorix._clip_grad_value(_named(parameters), clip_value)


def save(
    path: str | PathLike[str],
    model: Module,
    *,
    optimizer: Optimizer | None = None,
    generators: Mapping[str, Generator] | None = None,
    counters: Mapping[str, int] | None = None,
) -> None:
    """Writes a safetensors file: the parameters of a model, and what else a run needs to go on.

    With the model alone the names are those of :meth:`Module.state_dict`, which other programs read too;
    with more they begin with ``model.``.

    Parameters
    ----------
    path : path
        A file that is there is replaced whole, or not at all.
    model : Module
    optimizer : Optimizer, optional
    generators : mapping of str to Generator, optional
        Include :func:`sorix.default_generator` where a dropout has none of its own.
    counters : mapping of str to int, optional
        Numbers of steps, of epochs.
    """
    _sorix._save(
        path,
        list(model._all_parameters()),
        None if optimizer is None else optimizer._rust,
        list((generators or {}).items()),
        list((counters or {}).items()),
    )


def load(
    path: str | PathLike[str],
    model: Module,
    *,
    optimizer: Optimizer | None = None,
    generators: Mapping[str, Generator] | None = None,
    counters: Iterable[str] = (),
) -> dict[str, int]:
    """Reads what :func:`save` wrote into objects of the same kind; returns the counters.

    If anything does not fit, an error says what, and nothing is changed.

    Parameters
    ----------
    path : path
    model : Module
    optimizer : Optimizer, optional
    generators : mapping of str to Generator, optional
    counters : iterable of str
        The names of the counters that were saved.
    """
    return dict(
        _sorix._load(
            path,
            list(model._all_parameters()),
            None if optimizer is None else optimizer._rust,
            list((generators or {}).items()),
            [(name, 0) for name in counters],
        )
    )
