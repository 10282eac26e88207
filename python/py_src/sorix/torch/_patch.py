"""sorix under PyTorch's own operations, on CPUs."""

import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor
from torch._C import DispatchKey

from .. import mask as _mask
from . import _functional as functional
from . import _ops
from ._attention import Inputs, attend
from ._fused import Draw
from ._ops import ALPHA, SCALE, _transform

_lock = threading.Lock()
_library: torch.library.Library | None = None


def _takes(x: Tensor) -> bool:
    return _ops.is_ordinary(x) or (
        type(x) in _ops._stand_ins()
        and x.dtype in _ops.DTYPES
        and x.device.type == "cpu"
        and x.layout is torch.strided
    )


def _patched(name: str, form: int, features: bool, inplace: bool) -> Callable[..., Tensor]:
    """What an operation becomes."""
    operation = getattr(torch.ops.aten, name).default

    def dropout(x: Tensor, p: float, train: bool) -> Tensor:
        if not (train and 0.0 < p <= 1.0) or (features and x.dim() < 2) or not _takes(x):
            # As it was: also what it says of wrong arguments.
            result: Tensor = operation._op_dk(DispatchKey.CompositeImplicitAutograd, x, p, train)
            return result
        shared = functional._from_axis(2, x.dim()) if features else 0
        if not inplace and _ops.is_ordinary(x):
            seed, offset = _ops.key_numbers(None, None)
            return _ops.drop(x, (seed, offset, p, shared, form, None), "key")
        return functional.drop(x, p, shared=shared, form=form, inplace=inplace)

    return dropout


def _native_dropout(x: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """The operation that gives its mask too, as a tensor of bool."""
    if train is False or x.numel() == 0:
        return x.clone(), torch.ones_like(x, dtype=torch.bool)
    if not _ops.is_ordinary(x) or not 0.0 <= p <= 1.0:
        mask = torch.empty_like(x, dtype=torch.bool).bernoulli_(1.0 - p)
        return x * mask * (0.0 if p == 1.0 else 1.0 / (1.0 - p)), mask
    seed, offset = _ops.key_numbers(None, None)
    with torch.no_grad():
        y = _ops._run(x, (seed, offset, p, 0, SCALE, None))
    bools = _mask(tuple(x.shape), p, seed % 2**64, offset % 2**64)
    mask = torch.empty_like(x, dtype=torch.bool)
    return y, mask.copy_(torch.from_numpy(bools))


def _patched_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What attention becomes: PyTorch's own is fast without dropout."""
    inputs = Inputs(query, key, value, attn_mask)
    both = is_causal and attn_mask is not None
    ours = 0.0 < dropout_p <= 1.0 and not both and inputs.fit(enable_gqa)
    if not ours or not all(map(_takes, (query, key, value))) or _transform() is not None:
        operation = torch.ops.aten.scaled_dot_product_attention.default
        options: dict[str, Any] = {"scale": scale}
        if enable_gqa:
            # PyTorch 2.4 does not know it.
            options["enable_gqa"] = True
        result: Tensor = operation._op_dk(
            DispatchKey.CompositeImplicitAutograd, *inputs, dropout_p, is_causal, **options
        )
        return result
    draw = Draw(dropout_p, None, None, None, "key")
    return attend(inputs, is_causal, scale, enable_gqa, draw)


_DROPOUTS = [
    ("dropout", SCALE, False),
    ("feature_dropout", SCALE, True),
    ("alpha_dropout", ALPHA, False),
    ("feature_alpha_dropout", ALPHA, True),
]


class Patch:
    """That sorix is under PyTorch's operations; in a ``with`` statement it ends with the block."""

    def __init__(self, *, mine: bool) -> None:
        self._mine = mine

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._mine:
            unpatch()

    def __repr__(self) -> str:
        return f"<sorix.torch.patch: {'on' if is_patched() else 'off'}>"


def patch() -> Patch:
    """Puts sorix under PyTorch's dropout on CPUs, for programs that never heard of it.

    From then on ``nn.Dropout``, ``F.dropout`` and all that is made of them use sorix's kernels on CPUs:
    attention, LSTM, ``TransformerEncoderLayer``, compiled graphs, checkpoints. The operations are
    ``aten::dropout``, ``feature_dropout``, ``alpha_dropout``, ``feature_alpha_dropout``, each in place
    too, ``native_dropout``, and ``scaled_dot_product_attention`` with dropout. Keys come from PyTorch's generator; the masks are others than PyTorch's
    own. It holds for the whole process, until :func:`unpatch`, or for a ``with`` block.

    Other devices and dtypes, and tensors under ``torch.func.vmap``, have PyTorch's own dropout as before.
    What was compiled before stays as it was.

    Returns
    -------
    Patch
        A context manager. One within another changes nothing.

    Examples
    --------
    >>> import torch
    >>> import sorix.torch
    >>> with sorix.torch.patch():
    ...     y = torch.nn.Dropout(0.5)(torch.tensor([float("nan")] * 64))
    >>> bool((y == 0).any())  # not even NaN is left of what is dropped
    True
    """
    global _library
    with _lock:
        if _library is not None:
            return Patch(mine=False)
        library = torch.library.Library("aten", "IMPL")
        with warnings.catch_warnings():
            # That a kernel is there already, which is the purpose.
            warnings.simplefilter("ignore")
            for name, form, features in _DROPOUTS:
                for inplace in (False, True):
                    whole = f"{name}_" if inplace else name
                    function = _patched(whole, form, features, inplace)
                    for key in ("AutogradCPU", "CPU"):
                        library.impl(whole, function, key)
            library.impl("native_dropout", _native_dropout, "CPU")
            for key in ("AutogradCPU", "CPU"):
                library.impl("scaled_dot_product_attention", _patched_attention, key)
        _library = library
    return Patch(mine=True)


def unpatch() -> None:
    """Ends :func:`patch`: PyTorch is as it was. Does nothing where there is none."""
    global _library
    with _lock:
        library, _library = _library, None
        if library is not None:
            library._destroy()


def is_patched() -> bool:
    """Whether sorix is under PyTorch's operations."""
    return _library is not None
