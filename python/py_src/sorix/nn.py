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
from ._kinds import check_kind
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
    "MultiheadAttention",
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
    "TransformerDecoderLayer",
    "TransformerEncoderLayer",
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

    A parameter is named by its attribute, with places in lists and keys of dictionaries after dots: ``layers.0.weight``.
    If two have one name, as under the keys ``1`` and ``"1"`` of a dictionary, whatever asks for parameters raises
    ValueError.
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

    def _all_parameters(self) -> list[tuple[str, Parameter]]:
        """With the second and later names of what is shared; no name comes twice."""
        found = list(self._walk_parameters())
        names: set[str] = set()
        for name, _ in found:
            if name in names:
                raise ValueError(f"{type(self).__name__}: there are two parameters named {name!r}")
            names.add(name)
        return found

    def _walk_parameters(self) -> Iterator[tuple[str, Parameter]]:
        for name, value in vars(self).items():
            yield from _within(name, value, Parameter)
        for prefix, child in self.named_children():
            for name, parameter in child._walk_parameters():
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

        Of a tensor that the module has under several names one of them is enough, as for :func:`load`.

        Parameters
        ----------
        state_dict : mapping of str to Tensor or array_like
        strict : bool
            Whether each parameter has to be there, and nothing else.

        Raises
        ------
        KeyError
            If names are missing or not known, and ``strict``.
        ValueError, TypeError
            If a shape or a dtype is another one, if what came for two names of one tensor differs, or if a
            parameter is an expanded view, whose elements are one in memory. Nothing is written then.
        """
        parameters = self._all_parameters()
        tensors = _one_by_one(parameters)
        missing = [
            names[0] for _, names in tensors if not any(name in state_dict for name in names)
        ]
        own = {name for name, _ in parameters}
        unexpected = [name for name in state_dict if name not in own]
        if strict and (missing or unexpected):
            raise KeyError(
                f"load_state_dict: missing names {missing}, unexpected names {unexpected}"
            )
        given: list[tuple[str, Tensor]] = []
        targets: list[tuple[str, Tensor]] = []
        for parameter, names in tensors:
            there = [name for name in names if name in state_dict]
            values = [_fitting(name, state_dict[name], parameter) for name in there]
            for name, value in zip(there[1:], values[1:], strict=True):
                # By their bits, as a file: NaN agrees with itself.
                if value.data.tobytes() != values[0].data.tobytes():
                    raise ValueError(
                        f"load_state_dict: {there[0]!r} and {name!r} are one tensor, and differ in what came"
                    )
            if values:
                given.append((there[0], values[0]))
                targets.append((there[0], parameter))
        _sorix._copy_parameters(given, targets)

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


def _one_by_one(parameters: list[tuple[str, Parameter]]) -> list[tuple[Parameter, list[str]]]:
    """Each tensor once, with all its names; parameters of the same elements in memory are one tensor."""
    tensors: dict[tuple[Any, ...], tuple[Parameter, list[str]]] = {}
    # They share memory with the parameters; held, so that an address stays that of one of them.
    arrays = [parameter.data for _, parameter in parameters]
    for (name, parameter), array in zip(parameters, arrays, strict=True):
        address, _ = array.__array_interface__["data"]
        # Tensors without elements have no address of their own.
        place = (address if array.size else id(parameter), array.shape, array.strides, array.dtype)
        tensors.setdefault(place, (parameter, []))[1].append(name)
    return list(tensors.values())


def _fitting(name: str, value: ArrayLike, parameter: Parameter) -> Tensor:
    """What came for a parameter, as a tensor of its shape and dtype."""
    given = value if isinstance(value, Tensor) else _sorix.tensor(value)
    if given.shape != parameter.shape:
        raise ValueError(
            f"load_state_dict: {name!r}: expected shape {parameter.shape}, got {given.shape}"
        )
    if given.dtype != parameter.dtype:
        raise TypeError(
            f"load_state_dict: {name!r}: expected {parameter.dtype!r}, got {given.dtype!r}"
        )
    return given


class Sequential(Module):
    """Modules one after another, each on the output of the one before.

    What a class derived from this one holds as attributes is named, saved and put into training or use as in any
    module; ``forward`` does not call it.
    """

    def __init__(self, *modules: Module) -> None:
        self._layers = list(modules)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules, named by their places, and those that are attributes of a derived class."""
        for name, value in vars(self).items():
            if name == "_layers":
                yield from ((str(index), module) for index, module in enumerate(self._layers))
            else:
                yield from _within(name, value, Module)

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
        drawn, shift = _sorix._new_linear(in_features, out_features, dtype, generator)
        self._hold(drawn, shift if bias else None)

    def _hold(self, weight: Tensor, bias: Tensor | None) -> Self:
        self.out_features, self.in_features = weight.shape
        self.weight = Parameter(weight)
        self.bias = None if bias is None else Parameter(bias)
        return self

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


def _check_generator(generator: object) -> None:
    if generator is not None:
        check_kind("generator", generator, Generator, "a sorix.Generator")


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
        _check_generator(generator)
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
        The axis of the steps; by default the last but one, as in ``(N, T, C)``. 0 for ``(T, N, C)``."""
    )

    def __init__(
        self,
        p: float = 0.5,
        *,
        time_axis: int = -2,
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
        _check_exact("dropout", dropout, Dropout)
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
        return _add_norm(self.dropout, self, x, residual)


def _check_exact(name: str, module: object, kind: type[Module]) -> None:
    """That a module is of this kind: one pass with others looks at its attributes, and calls no method of it."""
    if type(module) is not kind:
        raise TypeError(f"{name}: expected a {kind.__name__}, got {type(module).__name__}")


def _add_norm(
    dropout: Dropout, norm: LayerNorm | DropoutAddNorm, x: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """The normalised ``residual + dropout(x)``, and that sum, in one pass."""
    _check_exact("dropout", dropout, Dropout)
    rms = isinstance(norm, DropoutAddNorm) and norm.norm == "rms"
    if not isinstance(norm, DropoutAddNorm):
        _check_exact("norm", norm, LayerNorm)
    return _sorix._dropout_add_norm(
        x,
        residual,
        rms,
        norm.normalized_shape,
        norm.weight,
        norm.bias,
        norm.eps,
        dropout.p,
        dropout.training,
        dropout.generator,
        dropout.save_mask == "key",
    )


class MultiheadAttention(Module):
    """Attention in several heads: queries look for keys, and get values.

    Query, key and value are projected, each head attends with dropout of its probabilities, and what the heads
    found is projected once more. The matrix of probabilities is never in memory: :meth:`forward` returns a pair, as
    PyTorch's does, whose second is always None. Inputs are batch first, ``(N, L, E)``, or ``(L, E)``.

    The parameters have the names and shapes of ``torch.nn.MultiheadAttention``, whose ``state_dict`` loads:
    ``in_proj_weight`` ``(3 E, E)``, ``in_proj_bias`` ``(3 E,)``, ``out_proj.weight`` ``(E, E)`` and
    ``out_proj.bias`` ``(E,)``. Keys and values are as wide as queries.

    Parameters
    ----------
    embed_dim : int
        E, the length of the last axis of inputs and output.
    num_heads : int
        Divides ``embed_dim``.
    dropout : float
        The probability of dropping, in [0, 1]; the child ``dropout`` is a :class:`Dropout`.
    bias : bool
        Whether the projections have biases.
    batch_first : bool
        True, the only layout there is.
    dtype : dtype
        Of the parameters.
    generator : Generator, optional
        Where the first values come from: ``in_proj_weight`` by Xavier's uniform distribution, ``out_proj.weight``
        uniform in ``±1 / sqrt(E)``, biases 0. The dropout draws from its fork ``"dropout"``, so that two modules
        given one generator draw the same masks: give each a fork. By default both are of the generator of the
        process.

    Raises
    ------
    ValueError
        If ``num_heads`` does not divide ``embed_dim``, or ``dropout`` is not in [0, 1].

    Examples
    --------
    >>> import sorix
    >>> attention = sorix.nn.MultiheadAttention(8, 2, dropout=0.1, generator=sorix.Generator(42))
    >>> [name for name, _ in attention.named_parameters()]
    ['in_proj_weight', 'in_proj_bias', 'out_proj.weight', 'out_proj.bias']
    >>> x, memory = sorix.randn((3, 5, 8)), sorix.randn((3, 7, 8))
    >>> y, _ = attention(x, memory, memory)
    >>> y.shape
    (3, 5, 8)

    What comes first does not depend on what comes later:

    >>> y, _ = attention.eval()(x, x, x, is_causal=True)
    >>> first = x[:, :1]
    >>> (y[:, :1] - attention(first, first, first)[0]).abs().max().item() < 1e-6
    True
    """

    in_proj_weight: Parameter
    in_proj_bias: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        *,
        batch_first: bool = True,
        dtype: DType = float32,
        generator: Generator | None = None,
    ) -> None:
        _check_batch_first(batch_first)
        _check_generator(generator)
        fork = None if generator is None else generator.fork("dropout")
        # Before a key is taken: its p may be none.
        drops = Dropout(dropout, generator=fork)
        weight, shift, out_weight, out_shift = _sorix._new_multi_head_attention(
            embed_dim, num_heads, dtype, generator
        )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.in_proj_weight = Parameter(weight)
        self.in_proj_bias = Parameter(shift) if bias else None
        self.out_proj = Linear.__new__(Linear)._hold(out_weight, out_shift if bias else None)
        self.dropout = drops

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        need_weights: bool = False,
    ) -> tuple[Tensor, None]:
        """What the queries find, of the shape of ``query``, and None in place of the weights.

        If key and value are one tensor, or all three are, their projections are one product. In training one key
        of the dropout's generator is taken. A query that sees no key gets the bias of the projection alone.

        Masks are tensors that are added to the scores: 0 where a query sees a key, minus infinity where it does
        not, anything else is a bias, which may require a gradient. They have the dtype of the input (of 16 bits,
        float32 will do, too). There are no masks of bools: of one in which True leaves out, as PyTorch's do here,
        ``sorix.zeros(mask.shape).masked_fill(sorix.tensor(mask, dtype="float32"), -math.inf)`` is the mask.

        Parameters
        ----------
        query : Tensor
            Of shape ``(N, L, E)`` or ``(L, E)``.
        key, value : Tensor
            Of shape ``(N, S, E)`` or ``(S, E)``.
        key_padding_mask : Tensor, optional
            For the keys of each sample, of shape ``(N, S)`` or ``(S,)``.
        attn_mask : Tensor, optional
            Of a shape that broadcasts to that of the scores, ``(N, num_heads, L, S)``: ``(L, S)`` for instance. Three
            axes are heads, queries and keys; a mask for each sample has four, ``(N, 1, L, S)``.
        is_causal : bool
            Whether query i sees keys 0 to i alone. It needs no ``attn_mask``, and holds beside one.
        need_weights : bool
            False: the weights are never in memory.

        Raises
        ------
        ValueError, TypeError
            If shapes or dtypes do not fit, a mask is no tensor, or the weights are asked for.

        Examples
        --------
        >>> import math, sorix
        >>> attention = sorix.nn.MultiheadAttention(4, 2, generator=sorix.Generator(42))
        >>> x = sorix.randn((2, 3, 4))
        >>> padding = sorix.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -math.inf]], dtype="float32")
        >>> y, _ = attention(x, x, x, key_padding_mask=padding)
        >>> short = x[1, :2]
        >>> (y[1, :2] - attention(short, short, short)[0]).abs().max().item() < 1e-6
        True
        """
        if need_weights:
            raise ValueError(
                "need_weights: expected False, got True: the weights are never in memory; "
                "Tensor.softmax_dropout between two products has them"
            )
        _check_exact("dropout", self.dropout, Dropout)
        _check_exact("out_proj", self.out_proj, Linear)
        y = _sorix._multi_head_attention(
            (query, key, value),
            (self.in_proj_weight, self.in_proj_bias),
            (self.out_proj.weight, self.out_proj.bias),
            self.num_heads,
            (key_padding_mask, attn_mask),
            is_causal,
            self.dropout.p,
            self.dropout.training,
            self.dropout.generator,
        )
        return y, None


def _check_batch_first(batch_first: bool) -> None:
    if not batch_first:
        raise ValueError("batch_first: expected True, the only layout there is, got False")


def _activated(activation: str, p: float) -> _DropoutBase:
    """An activation and a dropout of what it makes, in one pass."""
    match activation:
        case "relu":
            return ReLUDropout(p)
        case "gelu":
            return GELUDropout(p)
        case "gelu_tanh":
            return GELUDropout(p, "tanh")
        case "silu":
            return SiLUDropout(p)
    raise ValueError(
        f"activation: expected 'relu', 'gelu', 'gelu_tanh' or 'silu', got {activation!r}"
    )


def _fork_generators(module: Module, generator: Generator | None) -> None:
    """Gives each dropout below a module a stream by its name: those of the same layer in Rust."""
    if generator is None:
        return
    for path, child in module.named_modules():
        if isinstance(child, _DropoutBase):
            fork = generator
            for name in (*path.split("."), "generator"):
                fork = fork.fork(name)
            child.generator = fork


def _add(dropout: _DropoutBase, x: Tensor, residual: Tensor) -> Tensor:
    """``residual + dropout(x)``, in the dtype of x."""
    return dropout.forward_add(x, residual.to(x.dtype))


_LAYER = """
    Inputs are batch first, ``(N, L, E)``, or ``(L, E)``; there is no other layout. Postnorm, as in the paper and by
    default: ``x = norm1(x + dropout1(attention(x)))`` and so on; prenorm, with ``norm_first``: ``x +=
    dropout1(attention(norm1(x)))``. In both, dropout, residual and normalisation are one pass over memory, and so are
    activation and dropout within the network; the matrix of attention is never in memory. For inputs of 16 bits the
    residual is float32 within the layer.

    The parameters have the names and shapes of ``torch.nn.{0}``, whose ``state_dict`` loads. All have biases.

    Parameters
    ----------
    d_model : int
        E, the length of the last axis of inputs and output.
    nhead : int
        The number of heads; divides ``d_model``.
    dim_feedforward : int
        How many numbers each position has between the two linear layers.
    dropout : float
        The probability of dropping, in [0, 1], of all dropouts; each has its own ``p`` afterwards.
    activation : {{"relu", "gelu", "gelu_tanh", "silu"}}
        Of the network; it is part of the child ``dropout``, a :class:`ReLUDropout` and its like.
    layer_norm_eps : float
        Is added to the variances.
    batch_first : bool
        True, the only layout there is.
    norm_first : bool
        Whether the layer is prenorm.
    dtype : dtype
        Of the parameters.
    generator : Generator, optional
        Where the first values come from. Each dropout draws from a fork by its name, ``"dropout1"`` and then
        ``"generator"`` for instance, so that two layers given one generator draw the same masks: give each a fork.
        By default all are of the generator of the process.

    Raises
    ------
    ValueError
        If ``nhead`` does not divide ``d_model``, ``dropout`` is not in [0, 1] or ``activation`` is none of these.
    """


class _TransformerLayer(Module):
    """What an encoder's and a decoder's layer have in common."""

    norm_first: bool
    self_attn: MultiheadAttention
    linear1: Linear
    dropout: _DropoutBase
    linear2: Linear
    norm1: LayerNorm
    norm2: LayerNorm
    dropout1: Dropout
    dropout2: Dropout

    def _build(
        self,
        attentions: tuple[str, ...],
        widths: tuple[int, int, int],
        activated: _DropoutBase,
        eps: float,
        dtype: DType,
        generator: Generator | None,
    ) -> None:
        """Makes the children, in the order in which Rust takes keys for their first values: attentions by these names,
        and behind each of them, and behind the network, a dropout and a norm."""
        _check_generator(generator)
        width, heads, inner = widths
        p = activated.p
        for name in attentions:
            attention = MultiheadAttention(width, heads, p, dtype=dtype, generator=generator)
            setattr(self, name, attention)
        self.linear1 = Linear(width, inner, dtype=dtype, generator=generator)
        self.dropout = activated
        self.linear2 = Linear(inner, width, dtype=dtype, generator=generator)
        numbers = range(1, len(attentions) + 2)
        for number in numbers:
            setattr(self, f"norm{number}", LayerNorm(width, eps, dtype=dtype))
        for number in numbers:
            setattr(self, f"dropout{number}", Dropout(p))
        _fork_generators(self, generator)

    def _network(self, x: Tensor) -> Any:
        return self.linear2(self.dropout(self.linear1(x)))


class TransformerEncoderLayer(_TransformerLayer):
    __doc__ = (
        "A layer of a transformer's encoder: self-attention, and a network of two linear layers for each position,\n"
        "each with dropout, a residual and a :class:`LayerNorm`.\n"
        + _LAYER.format("TransformerEncoderLayer")
        + """
    Examples
    --------
    >>> import sorix
    >>> generator = sorix.Generator(42)
    >>> layers = [
    ...     sorix.nn.TransformerEncoderLayer(8, 2, 32, norm_first=True, generator=generator.fork(name))
    ...     for name in ("first", "second")
    ... ]
    >>> encoder = sorix.nn.Sequential(*layers)  # for masks a loop over the layers
    >>> x = sorix.randn((3, 5, 8))
    >>> encoder(x).shape
    (3, 5, 8)
    >>> bool((encoder(x).data == encoder(x).data).all())
    False
    >>> encoder = encoder.eval()
    >>> bool((encoder(x).data == encoder(x).data).all())
    True
    """
    )

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "relu",
        layer_norm_eps: float = 1e-5,
        *,
        batch_first: bool = True,
        norm_first: bool = False,
        dtype: DType = float32,
        generator: Generator | None = None,
    ) -> None:
        _check_batch_first(batch_first)
        widths = (d_model, nhead, dim_feedforward)
        activated = _activated(activation, dropout)
        self._build(("self_attn",), widths, activated, layer_norm_eps, dtype, generator)
        self.norm_first = norm_first

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """What the layer makes of ``src``, of its shape. In training each of the four dropouts takes a key.

        Parameters
        ----------
        src : Tensor
            Of shape ``(N, L, E)`` or ``(L, E)``.
        src_mask, src_key_padding_mask : Tensor, optional
            The ``attn_mask`` and the ``key_padding_mask`` of :meth:`MultiheadAttention.forward`: added to the scores.
        is_causal : bool
            Whether position i sees positions 0 to i alone. It needs no ``src_mask``, and holds beside one.

        Raises
        ------
        ValueError, TypeError
            If shapes or dtypes do not fit, or a mask is no tensor.
        """

        def attend(x: Tensor) -> Any:
            return self.self_attn(x, x, x, src_key_padding_mask, src_mask, is_causal)[0]

        if self.norm_first:
            found = attend(self.norm1(src))
            z, total = _add_norm(self.dropout1, self.norm2, found, src)
            return _add(self.dropout2, self._network(z), total)
        x, _ = _add_norm(self.dropout1, self.norm1, attend(src), src)
        return _add_norm(self.dropout2, self.norm2, self._network(x), x)[0]


class TransformerDecoderLayer(_TransformerLayer):
    __doc__ = (
        "A layer of a transformer's decoder: self-attention, attention to a memory, and a network of two linear\n"
        "layers for each position, each with dropout, a residual and a :class:`LayerNorm`.\n"
        + _LAYER.format("TransformerDecoderLayer")
        + """
    Examples
    --------
    >>> import sorix
    >>> layer = sorix.nn.TransformerDecoderLayer(8, 2, 32, generator=sorix.Generator(42))
    >>> x, memory = sorix.randn((3, 5, 8)), sorix.randn((3, 7, 8))
    >>> layer(x, memory, tgt_is_causal=True).shape
    (3, 5, 8)
    >>> [name for name, _ in layer.named_children()][:3]
    ['self_attn', 'multihead_attn', 'linear1']
    """
    )

    multihead_attn: MultiheadAttention
    norm3: LayerNorm
    dropout3: Dropout

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "relu",
        layer_norm_eps: float = 1e-5,
        *,
        batch_first: bool = True,
        norm_first: bool = False,
        dtype: DType = float32,
        generator: Generator | None = None,
    ) -> None:
        _check_batch_first(batch_first)
        widths = (d_model, nhead, dim_feedforward)
        activated = _activated(activation, dropout)
        self._build(
            ("self_attn", "multihead_attn"), widths, activated, layer_norm_eps, dtype, generator
        )
        self.norm_first = norm_first

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """What the layer makes of ``tgt``, of its shape. In training each of the six dropouts takes a key.

        Parameters
        ----------
        tgt : Tensor
            Of shape ``(N, L, E)`` or ``(L, E)``.
        memory : Tensor
            Of shape ``(N, S, E)`` or ``(S, E)``.
        tgt_mask, tgt_key_padding_mask : Tensor, optional
            The ``attn_mask`` and the ``key_padding_mask`` of :meth:`MultiheadAttention.forward` for the
            self-attention: added to the scores.
        memory_mask, memory_key_padding_mask : Tensor, optional
            Those of the attention to the memory.
        tgt_is_causal : bool
            Whether position i sees positions 0 to i alone. It needs no ``tgt_mask``, and holds beside one.
        memory_is_causal : bool
            Whether position i sees places 0 to i of the memory alone.

        Raises
        ------
        ValueError, TypeError
            If shapes or dtypes do not fit, or a mask is no tensor.
        """

        def attend(x: Tensor) -> Any:
            return self.self_attn(x, x, x, tgt_key_padding_mask, tgt_mask, tgt_is_causal)[0]

        def look_up(x: Tensor) -> Any:
            masks = (memory_key_padding_mask, memory_mask, memory_is_causal)
            return self.multihead_attn(x, memory, memory, *masks)[0]

        if self.norm_first:
            found = attend(self.norm1(tgt))
            z, total = _add_norm(self.dropout1, self.norm2, found, tgt)
            z, total = _add_norm(self.dropout2, self.norm3, look_up(z), total)
            return _add(self.dropout3, self._network(z), total)
        x, _ = _add_norm(self.dropout1, self.norm1, attend(tgt), tgt)
        x, _ = _add_norm(self.dropout2, self.norm2, look_up(x), x)
        return _add_norm(self.dropout3, self.norm3, self._network(x), x)[0]


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
        model._all_parameters(),
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

    If anything does not fit, an error says what, and nothing is changed. Of a file with an optimizer, generators or
    counters ask for one of these at least, so that the model is looked for under ``model.``.

    Parameters
    ----------
    path : path
    model : Module
    optimizer : Optimizer, optional
    generators : mapping of str to Generator, optional
        One under two names has to have one state in the file.
    counters : iterable of str
        The names of the counters that were saved.
    """
    return dict(
        _sorix._load(
            path,
            model._all_parameters(),
            None if optimizer is None else optimizer._rust,
            list((generators or {}).items()),
            [(name, 0) for name in counters],
        )
    )
