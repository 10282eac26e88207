"""Dropout of PyTorch's tensors on CPUs.

The modules have the names and signatures of PyTorch's, and ``generator=``; the functions also take
``key=(seed, offset)``, which names one mask, the same on every machine. :func:`patch` puts them under
programs that never heard of them.

By default keys come from PyTorch's own generator, so that ``torch.manual_seed``, ``get_rng_state``,
``fork_rng`` and ``torch.utils.checkpoint`` hold. What is kept for backward is the key: 16 bytes for a
tensor of any size.

Tensors on other devices, and what the kernels have no form for, go to PyTorch's own functions.

Examples
--------
>>> import torch
>>> import sorix.torch
>>> x = torch.ones(2, 4, requires_grad=True)
>>> y = sorix.torch.dropout(x, 0.5, key=(42, 0))
>>> y
tensor([[2., 2., 0., 2.],
        [2., 0., 2., 0.]], grad_fn=<DropoutBackward>)
>>> y.sum().backward()
>>> bool((x.grad == y).all())
True
"""

import torch as _torch

_FLOOR = (2, 4)
if tuple(map(int, _torch.__version__.split(".")[:2])) < _FLOOR:
    raise ImportError(
        f"sorix.torch needs PyTorch 2.4 or later, and {_torch.__version__} is installed"
    )

from ._attention import scaled_dot_product_attention  # noqa: E402
from ._functional import (  # noqa: E402
    alpha_dropout,
    drop_path,
    drop_path_add,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    dropout_add,
    feature_alpha_dropout,
    locked_dropout,
)
from ._fused import act_dropout, bias_dropout_add, swiglu_dropout  # noqa: E402
from ._modules import (  # noqa: E402
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    DropoutAdd,
    DropoutAddNorm,
    DropPath,
    FeatureAlphaDropout,
    GELUDropout,
    LockedDropout,
    ReLUDropout,
    SiLUDropout,
    SwiGLUDropout,
    replace,
)
from ._norm import dropout_add_norm  # noqa: E402
from ._patch import is_patched, patch, unpatch  # noqa: E402

__all__ = [
    "AlphaDropout",
    "DropPath",
    "Dropout",
    "Dropout1d",
    "Dropout2d",
    "Dropout3d",
    "DropoutAdd",
    "DropoutAddNorm",
    "FeatureAlphaDropout",
    "GELUDropout",
    "LockedDropout",
    "ReLUDropout",
    "SiLUDropout",
    "SwiGLUDropout",
    "act_dropout",
    "alpha_dropout",
    "bias_dropout_add",
    "drop_path",
    "drop_path_add",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "dropout_add",
    "dropout_add_norm",
    "feature_alpha_dropout",
    "is_patched",
    "locked_dropout",
    "patch",
    "replace",
    "scaled_dot_product_attention",
    "swiglu_dropout",
    "unpatch",
]
