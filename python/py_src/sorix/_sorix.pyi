"""The native half of the package; what users need of it is in ``sorix`` and ``sorix.nn``."""

from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from typing import Any, Literal, Self, TypeAlias, TypeVar, final, overload

import numpy as np
import numpy.typing as npt
from typing_extensions import disjoint_base

_R = TypeVar("_R")
_Array: TypeAlias = npt.NDArray[Any]
_Bits: TypeAlias = npt.NDArray[np.uint8]
_Bools: TypeAlias = npt.NDArray[np.bool_]
_ArrayLike: TypeAlias = Any
_Shape: TypeAlias = int | Sequence[int]
_DType: TypeAlias = dtype | str | type | np.dtype[Any]
_Axis: TypeAlias = int | Sequence[int] | None
_Operand: TypeAlias = Tensor | float | _Array
_Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh", "silu"]

__version__: str
float16: dtype
bfloat16: dtype
float32: dtype
float64: dtype

@final
class dtype:
    @property
    def name(self) -> str: ...
    @property
    def itemsize(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> str: ...

@final
class Generator:
    def __new__(cls, seed: int | None = None, offset: int = 0) -> Self: ...
    @property
    def seed(self) -> int: ...
    @property
    def offset(self) -> int: ...
    def next_key(self) -> tuple[int, int]: ...
    def manual_seed(self, seed: int) -> None: ...
    def get_state(self) -> tuple[int, int]: ...
    def set_state(self, state: tuple[int, int]) -> None: ...
    def fork(self, name: str) -> Generator: ...
    def __getnewargs__(self) -> tuple[int, int]: ...

@final
class Shard:
    def __new__(cls, shape: Sequence[int], axis: int, start: int, stop: int) -> Self: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def axis(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def stop(self) -> int: ...
    @property
    def part(self) -> tuple[int, ...]: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __getnewargs__(self) -> tuple[list[int], int, int, int]: ...

@disjoint_base
class Tensor:
    __array_ufunc__: None
    def __new__(
        cls, data: _ArrayLike, dtype: _DType | None = None, requires_grad: bool = False
    ) -> Self: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> dtype: ...
    @property
    def ndim(self) -> int: ...
    @property
    def size(self) -> int: ...
    def numel(self) -> int: ...
    @property
    def T(self) -> Tensor: ...
    @property
    def data(self) -> _Array: ...
    def numpy(self) -> _Array: ...
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> _Array: ...
    def item(self) -> float: ...
    def tolist(self) -> Any: ...
    @property
    def grad(self) -> Tensor | None: ...
    @grad.setter
    def grad(self, value: None, /) -> None: ...
    def zero_grad(self) -> None: ...
    @property
    def requires_grad(self) -> bool: ...
    @requires_grad.setter
    def requires_grad(self, value: bool, /) -> None: ...
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...
    @property
    def is_leaf(self) -> bool: ...
    def is_contiguous(self) -> bool: ...
    def backward(self, gradient: Tensor | None = None, *, retain_graph: bool = False) -> None: ...
    def detach(self) -> Tensor: ...
    def clone(self) -> Tensor: ...
    def copy_(self, other: Tensor) -> Self: ...
    def astype(self, dtype: _DType) -> Tensor: ...
    def to(self, dtype: _DType) -> Tensor: ...
    def __len__(self) -> int: ...
    def __bool__(self) -> bool: ...
    def __float__(self) -> float: ...
    def __int__(self) -> int: ...
    def __iter__(self) -> Iterator[Tensor]: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[override]
    def __ne__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[override]
    def __lt__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[misc]
    def __le__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[misc]
    def __gt__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[misc]
    def __ge__(self, other: _Operand, /) -> Tensor: ...  # type: ignore[misc]
    def __neg__(self) -> Tensor: ...
    def __pos__(self) -> Tensor: ...
    def __abs__(self) -> Tensor: ...
    def __add__(self, other: _Operand, /) -> Tensor: ...
    def __radd__(self, other: _Operand, /) -> Tensor: ...
    def __sub__(self, other: _Operand, /) -> Tensor: ...
    def __rsub__(self, other: _Operand, /) -> Tensor: ...
    def __mul__(self, other: _Operand, /) -> Tensor: ...
    def __rmul__(self, other: _Operand, /) -> Tensor: ...
    def __truediv__(self, other: _Operand, /) -> Tensor: ...
    def __rtruediv__(self, other: _Operand, /) -> Tensor: ...
    def __matmul__(self, other: Tensor | _Array, /) -> Tensor: ...
    def __rmatmul__(self, other: _Array, /) -> Tensor: ...
    def __pow__(self, exponent: float, modulo: None = None, /) -> Tensor: ...
    def pow(self, exponent: float) -> Tensor: ...
    def matmul(self, other: Tensor) -> Tensor: ...
    def maximum(self, other: Tensor) -> Tensor: ...
    def minimum(self, other: Tensor) -> Tensor: ...
    def masked_fill(self, mask: Tensor, value: float) -> Tensor: ...
    def dropout_add(
        self,
        residual: Tensor,
        p: float,
        *,
        seed: int,
        offset: int = 0,
        shard: Shard | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> Tensor: ...
    def act_dropout(
        self,
        activation: _Activation,
        p: float,
        *,
        bias: Tensor | None = None,
        seed: int,
        offset: int = 0,
        shard: Shard | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> Tensor: ...
    def swiglu_dropout(
        self,
        up: Tensor,
        p: float,
        *,
        seed: int,
        offset: int = 0,
        shard: Shard | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> Tensor: ...
    def bias_dropout_add(
        self,
        bias: Tensor,
        residual: Tensor,
        p: float,
        *,
        seed: int,
        offset: int = 0,
        shard: Shard | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> Tensor: ...
    def dropout_add_norm(
        self,
        residual: Tensor,
        p: float,
        *,
        norm: Literal["layer", "rms"] = "layer",
        weight: Tensor | None = None,
        shift: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        axes: int = 1,
        seed: int,
        offset: int = 0,
        shard: Shard | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> tuple[Tensor, Tensor]: ...
    def softmax_dropout(
        self,
        p: float,
        *,
        attn_mask: Tensor | None = None,
        scale: float = 1.0,
        seed: int,
        offset: int = 0,
        shard: Shard | None = None,
        save_mask: Literal["bits", "key"] = "bits",
    ) -> Tensor: ...
    def scaled_dot_product_attention(
        self,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
        seed: int | None = None,
        offset: int = 0,
        shard: Shard | None = None,
    ) -> Tensor: ...
    def abs(self) -> Tensor: ...
    def exp(self) -> Tensor: ...
    def expm1(self) -> Tensor: ...
    def log(self) -> Tensor: ...
    def log1p(self) -> Tensor: ...
    def sqrt(self) -> Tensor: ...
    def tanh(self) -> Tensor: ...
    def sigmoid(self) -> Tensor: ...
    def relu(self) -> Tensor: ...
    def gelu(self, approximate: Literal["none", "tanh"] = "none") -> Tensor: ...
    def silu(self) -> Tensor: ...
    def selu(self) -> Tensor: ...
    def softplus(self) -> Tensor: ...
    def softmax(self, axis: int) -> Tensor: ...
    def log_softmax(self, axis: int) -> Tensor: ...
    def clip(self, min: float | None = None, max: float | None = None) -> Tensor: ...
    def tril(self, k: int = 0) -> Tensor: ...
    @overload
    def reshape(self, *shape: int) -> Tensor: ...
    @overload
    def reshape(self, shape: Sequence[int], /) -> Tensor: ...
    def flatten(self, start: int = 0, end: int = ...) -> Tensor: ...
    def squeeze(self, axis: int | None = None) -> Tensor: ...
    def unsqueeze(self, axis: int) -> Tensor: ...
    def transpose(self, axis0: int, axis1: int) -> Tensor: ...
    @overload
    def permute(self, *axes: int) -> Tensor: ...
    @overload
    def permute(self, axes: Sequence[int], /) -> Tensor: ...
    @overload
    def expand(self, *shape: int) -> Tensor: ...
    @overload
    def expand(self, shape: Sequence[int], /) -> Tensor: ...
    def contiguous(self) -> Tensor: ...
    def sum(self, axis: _Axis = None, keepdims: bool = False) -> Tensor: ...
    def mean(self, axis: _Axis = None, keepdims: bool = False) -> Tensor: ...
    def max(self, axis: _Axis = None, keepdims: bool = False) -> Tensor: ...
    def min(self, axis: _Axis = None, keepdims: bool = False) -> Tensor: ...
    def var(self, axis: _Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor: ...
    def std(self, axis: _Axis = None, ddof: int = 0, keepdims: bool = False) -> Tensor: ...
    def norm(self, axis: _Axis = None, keepdims: bool = False) -> Tensor: ...
    def logsumexp(self, axis: _Axis = None, keepdims: bool = False) -> Tensor: ...
    def argmax(self, axis: int) -> npt.NDArray[np.int64]: ...
    def index_select(self, axis: int, indices: Sequence[int]) -> Tensor: ...
    def __getitem__(self, index: Any, /) -> Tensor: ...
    def __reduce__(self) -> tuple[Any, ...]: ...
    def __deepcopy__(self, _memo: Any) -> Self: ...

def tensor(
    data: _ArrayLike, *, dtype: _DType | None = None, requires_grad: bool = False
) -> Tensor: ...
def zeros(shape: _Shape, *, dtype: _DType | None = None, requires_grad: bool = False) -> Tensor: ...
def ones(shape: _Shape, *, dtype: _DType | None = None, requires_grad: bool = False) -> Tensor: ...
def full(
    shape: _Shape, value: float, *, dtype: _DType | None = None, requires_grad: bool = False
) -> Tensor: ...
def arange(
    start: float, stop: float | None = None, step: float = 1.0, *, dtype: _DType | None = None
) -> Tensor: ...
def randn(
    shape: _Shape, *, dtype: _DType | None = None, generator: Generator | None = None
) -> Tensor: ...
def normal(
    mean: float,
    std: float,
    shape: _Shape,
    *,
    dtype: _DType | None = None,
    generator: Generator | None = None,
) -> Tensor: ...
def uniform(
    low: float,
    high: float,
    shape: _Shape,
    *,
    dtype: _DType | None = None,
    generator: Generator | None = None,
) -> Tensor: ...
def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor: ...
def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor: ...
def where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor: ...
def manual_seed(seed: int) -> None: ...
def default_generator() -> Generator: ...
def is_grad_enabled() -> bool: ...
def set_num_threads(threads: int) -> None: ...
def get_num_threads() -> int: ...
@overload
def dropout(
    x: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[False] = False,
) -> _Array: ...
@overload
def dropout(
    x: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[True],
) -> tuple[_Array, _Bits]: ...
@overload
def dropout_add(
    x: _ArrayLike,
    residual: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[False] = False,
) -> _Array: ...
@overload
def dropout_add(
    x: _ArrayLike,
    residual: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[True],
) -> tuple[_Array, _Bits]: ...
@overload
def act_dropout(
    x: _ArrayLike,
    activation: _Activation,
    p: float,
    *,
    bias: _ArrayLike | None = None,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[False] = False,
) -> _Array: ...
@overload
def act_dropout(
    x: _ArrayLike,
    activation: _Activation,
    p: float,
    *,
    bias: _ArrayLike | None = None,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[True],
) -> tuple[_Array, _Bits]: ...
def act_dropout_backward(
    dy: _ArrayLike,
    activation: _Activation,
    p: float,
    *,
    x: _ArrayLike | None = None,
    bias: _ArrayLike | None = None,
    mask: _Bits | _Bools | None = None,
    seed: int | None = None,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
) -> _Array: ...
@overload
def bias_dropout_add(
    x: _ArrayLike,
    bias: _ArrayLike,
    residual: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[False] = False,
) -> _Array: ...
@overload
def bias_dropout_add(
    x: _ArrayLike,
    bias: _ArrayLike,
    residual: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[True],
) -> tuple[_Array, _Bits]: ...
@overload
def swiglu_dropout(
    gate: _ArrayLike,
    up: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[False] = False,
) -> _Array: ...
@overload
def swiglu_dropout(
    gate: _ArrayLike,
    up: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
    return_mask: Literal[True],
) -> tuple[_Array, _Bits]: ...
def swiglu_dropout_backward(
    dy: _ArrayLike,
    gate: _ArrayLike,
    up: _ArrayLike,
    p: float,
    *,
    mask: _Bits | _Bools | None = None,
    seed: int | None = None,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
) -> tuple[_Array, _Array]: ...
def dropout_backward(
    dy: _ArrayLike, mask: _Bits | _Bools, p: float, *, out: _Array | None = None
) -> _Array: ...
def replay(
    dy: _ArrayLike,
    p: float,
    *,
    seed: int,
    offset: int = 0,
    first: int = 0,
    shard: Shard | None = None,
    out: _Array | None = None,
) -> _Array: ...
@overload
def mask(
    shape: _Shape,
    p: float,
    seed: int,
    offset: int = 0,
    *,
    first: int = 0,
    shard: Shard | None = None,
    packed: Literal[False] = False,
) -> _Bools: ...
@overload
def mask(
    shape: _Shape,
    p: float,
    seed: int,
    offset: int = 0,
    *,
    first: int = 0,
    shard: Shard | None = None,
    packed: Literal[True],
) -> _Bits: ...
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor: ...
def embedding(x: _ArrayLike, weight: Tensor) -> Tensor: ...
def layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor: ...
def mse_loss(
    input: Tensor, target: Tensor, *, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor: ...
def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, *, reduction: Literal["mean", "sum", "none"] = "mean"
) -> Tensor: ...
def cross_entropy(
    input: Tensor,
    target: _ArrayLike,
    *,
    weight: Tensor | None = None,
    ignore_index: int = ...,
    reduction: Literal["mean", "sum", "none"] = "mean",
    label_smoothing: float = 0.0,
) -> Tensor: ...
def monte_carlo(function: Callable[[], _R], *, seed: int, sample: int = 0) -> _R: ...

@final
class DropoutForm:
    @staticmethod
    def elements() -> DropoutForm: ...
    @staticmethod
    def channels(spatial: int, last: bool) -> DropoutForm: ...
    @staticmethod
    def alpha() -> DropoutForm: ...
    @staticmethod
    def feature_alpha() -> DropoutForm: ...
    @staticmethod
    def gaussian() -> DropoutForm: ...
    @staticmethod
    def paths(per_batch: bool, scale_by_keep: bool) -> DropoutForm: ...
    @staticmethod
    def locked(time_axis: int) -> DropoutForm: ...
    @staticmethod
    def noise_shape(shape: Sequence[int | None]) -> DropoutForm: ...
    @staticmethod
    def shared_along(axes: Sequence[int]) -> DropoutForm: ...
    @staticmethod
    def blocks(block_size: int) -> DropoutForm: ...
    @staticmethod
    def relu() -> DropoutForm: ...
    @staticmethod
    def gelu(approximate: Literal["none", "tanh"]) -> DropoutForm: ...
    @staticmethod
    def silu() -> DropoutForm: ...
    @staticmethod
    def swiglu() -> DropoutForm: ...

@final
class RustOptimizer:
    @staticmethod
    def sgd(
        parameters: Sequence[tuple[str, Tensor]],
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> RustOptimizer: ...
    @staticmethod
    def adam(
        parameters: Sequence[tuple[str, Tensor]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        decoupled: bool,
    ) -> RustOptimizer: ...
    def step(self) -> None: ...
    def zero_grad(self) -> None: ...
    @property
    def lr(self) -> float: ...
    @lr.setter
    def lr(self, value: float, /) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any]) -> None: ...

def _set_grad_enabled(enabled: bool) -> bool: ...
def _before_fork() -> None: ...
def _after_fork() -> None: ...
def _check_rate(p: float) -> float: ...
def _rebuild_tensor(
    class_: type[Tensor], elements: bytes, shape: Sequence[int], dtype: _DType, requires_grad: bool
) -> Tensor: ...
def _dropout(
    x: Tensor,
    form: DropoutForm,
    p: float,
    training: bool,
    generator: Generator | None,
    replay: bool,
    key: tuple[int, int] | None,
    shard: Shard | None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
) -> Tensor: ...
def _swiglu(x: Tensor) -> Tensor: ...
def _dropout_add_norm(
    x: Tensor,
    residual: Tensor,
    rms: bool,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    p: float,
    training: bool,
    generator: Generator | None,
    replay: bool,
) -> tuple[Tensor, Tensor]: ...
def _weight_dropout(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    p: float,
    training: bool,
    generator: Generator | None,
) -> Tensor: ...
def _embedding_dropout(
    x: _ArrayLike, weight: Tensor, p: float, training: bool, generator: Generator | None
) -> Tensor: ...
def _multi_head_attention(
    inputs: Sequence[Tensor],
    projections: tuple[Tensor, Tensor | None],
    out: tuple[Tensor, Tensor | None],
    num_heads: int,
    masks: Sequence[Tensor | None],
    is_causal: bool,
    p: float,
    training: bool,
    generator: Generator | None,
) -> Tensor: ...
def _new_multi_head_attention(
    embed_dim: int, num_heads: int, dtype: _DType, generator: Generator | None
) -> list[Tensor]: ...
def _new_linear(
    inputs: int, outputs: int, dtype: _DType, generator: Generator | None
) -> tuple[Tensor, Tensor]: ...
def _new_embedding(rows: int, width: int, dtype: _DType, generator: Generator | None) -> Tensor: ...
def _clip_grad_norm(parameters: Sequence[tuple[str, Tensor]], max_norm: float) -> float: ...
def _copy_parameters(
    values: Sequence[tuple[str, Tensor]], parameters: Sequence[tuple[str, Tensor]]
) -> None: ...
def _clip_grad_value(parameters: Sequence[tuple[str, Tensor]], clip_value: float) -> None: ...
def _save(
    path: str | PathLike[str],
    parameters: Sequence[tuple[str, Tensor]],
    optimizer: RustOptimizer | None,
    generators: Sequence[tuple[str, Generator]],
    counters: Sequence[tuple[str, int]],
) -> None: ...
def _load(
    path: str | PathLike[str],
    parameters: Sequence[tuple[str, Tensor]],
    optimizer: RustOptimizer | None,
    generators: Sequence[tuple[str, Generator]],
    counters: Sequence[tuple[str, int]],
) -> list[tuple[str, int]]: ...
def _draw(
    x: _Array,
    residual: _Array | None,
    out: _Array | None,
    p: float,
    seed: int,
    offset: int,
    mask_shape: Sequence[int] | None,
    form: int,
    shard: Sequence[int] | None,
    save: bool,
    threads: int,
) -> _Bits | None: ...
def _apply(
    x: _Array,
    out: _Array | None,
    p: float,
    bits: _Bits,
    mask_shape: Sequence[int] | None,
    form: int,
    threads: int,
) -> None: ...
def _act_draw(
    x: _Array,
    bias: _Array | None,
    out: _Array,
    activation: str,
    p: float,
    seed: int,
    offset: int,
    shard: Sequence[int] | None,
    save: bool,
    threads: int,
) -> _Bits | None: ...
def _act_gradient(
    dy: _Array,
    x: _Array | None,
    bias: _Array | None,
    out: _Array,
    activation: str,
    p: float,
    seed: int,
    offset: int,
    shard: Sequence[int] | None,
    bits: _Bits | None,
    threads: int,
) -> None: ...
def _bias_draw(
    x: _Array,
    bias: _Array,
    residual: _Array,
    out: _Array,
    p: float,
    seed: int,
    offset: int,
    shard: Sequence[int] | None,
    save: bool,
    threads: int,
) -> _Bits | None: ...
def _swiglu_draw(
    gate: _Array,
    up: _Array,
    out: _Array,
    p: float,
    seed: int,
    offset: int,
    shard: Sequence[int] | None,
    save: bool,
    threads: int,
) -> _Bits | None: ...
def _swiglu_gradients(
    dy: _Array,
    gate: _Array,
    up: _Array,
    d_gate: _Array | None,
    d_up: _Array | None,
    p: float,
    seed: int,
    offset: int,
    shard: Sequence[int] | None,
    bits: _Bits | None,
    threads: int,
) -> None: ...
def _norm_draw(
    x: _Array,
    residual: _Array,
    weight: _Array | None,
    shift: _Array | None,
    z: _Array,
    sum: _Array,
    moments: _Array,
    rows: tuple[bool, int, float],
    p: float,
    seed: int,
    offset: int,
    shard: Sequence[int] | None,
    save: bool,
    threads: int,
) -> _Bits | None: ...
def _norm_gradients(
    dz: _Array,
    more: _Array | None,
    sum: _Array,
    moments: _Array,
    weight: _Array | None,
    d_sum: _Array,
    d_weight: _Array | None,
    d_shift: _Array | None,
    rows: tuple[bool, int, float],
    threads: int,
) -> None: ...
def _attention(
    inputs: Sequence[_Array],
    attn_mask: _Array | None,
    options: Any,
    out: _Array,
    logsumexp: _Array,
) -> None: ...
def _attention_gradients(
    inputs: Sequence[_Array],
    attn_mask: _Array | None,
    options: Any,
    result: Sequence[_Array],
    gradients: Sequence[_Array | None],
) -> None: ...
