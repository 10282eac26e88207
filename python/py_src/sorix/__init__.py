"""Dropout for CPUs at memory speed: one mask per seed on every machine.

Three doors, which give the same mask for the same ``(seed, offset)``:

* arrays of numpy: :func:`dropout`, :func:`dropout_backward`, :func:`replay`, :func:`mask`, and in one pass
  with what stands beside it :func:`dropout_add`, :func:`bias_dropout_add`, :func:`act_dropout`,
  :func:`swiglu_dropout`;
* tensors of its own, with gradients: :func:`tensor`, and the modules of :mod:`sorix.nn`;
* PyTorch: :mod:`sorix.torch`, which is imported only where it is asked for.

Examples
--------
>>> import sorix
>>> from sorix.nn import Dropout
>>> _ = sorix.manual_seed(42)
>>> x = sorix.tensor([10.0, 20.0, 30.0, 40.0, 50.0], requires_grad=True)
>>> y = Dropout(p=0.5)(x)
>>> y.sum().backward()
>>> x.grad
tensor([2., 2., 0., 2., 2.], dtype=sorix.float64)
"""

import os as _os
from pathlib import Path as _Path

# PyPI has another distribution of this import name, whose files lie in the same directory where both are
# installed: then half of each would be imported.
if (_Path(__file__).parent / "tensor.py").exists():
    raise ImportError(
        "two distributions named their module 'sorix' and both are installed: 'sorix-rs', which this is, and"
        " 'sorix'. Run 'pip uninstall sorix sorix-rs', then 'pip install' the one that you want."
    )

from . import nn
from ._grad_mode import enable_grad, no_grad, set_grad_enabled
from ._sorix import (
    Generator,
    Shard,
    Tensor,
    __version__,
    _after_fork,
    _before_fork,
    act_dropout,
    act_dropout_backward,
    arange,
    bfloat16,
    bias_dropout_add,
    concatenate,
    default_generator,
    dropout,
    dropout_add,
    dropout_backward,
    dtype,
    float16,
    float32,
    float64,
    full,
    get_num_threads,
    is_grad_enabled,
    manual_seed,
    mask,
    normal,
    ones,
    randn,
    replay,
    set_num_threads,
    stack,
    swiglu_dropout,
    swiglu_dropout_backward,
    tensor,
    uniform,
    where,
    zeros,
)

# A child has none of the threads of its parent, and must not wait for what they hold.
if hasattr(_os, "register_at_fork"):
    _os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork
    )

__all__ = [
    "Generator",
    "Shard",
    "Tensor",
    "__version__",
    "act_dropout",
    "act_dropout_backward",
    "arange",
    "bfloat16",
    "bias_dropout_add",
    "concatenate",
    "default_generator",
    "dropout",
    "dropout_add",
    "dropout_backward",
    "dtype",
    "enable_grad",
    "float16",
    "float32",
    "float64",
    "full",
    "get_num_threads",
    "is_grad_enabled",
    "manual_seed",
    "mask",
    "nn",
    "no_grad",
    "normal",
    "ones",
    "randn",
    "replay",
    "set_grad_enabled",
    "set_num_threads",
    "stack",
    "swiglu_dropout",
    "swiglu_dropout_backward",
    "tensor",
    "uniform",
    "where",
    "zeros",
]
