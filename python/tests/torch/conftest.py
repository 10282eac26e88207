"""Tests of ``sorix.torch``: skipped, visibly, where PyTorch is not installed."""

import importlib.util
import os
import warnings

import pytest

if importlib.util.find_spec("torch") is None:
    if os.environ.get("CI"):
        raise RuntimeError("these tests need PyTorch, which is not installed")
    collect_ignore_glob = ["test_*.py"]
    warnings.warn("PyTorch is not installed: the tests of sorix.torch are left out", stacklevel=1)
else:
    import sorix.torch
    import torch

    @pytest.fixture(autouse=True)
    def _fresh():
        """Each test begins with PyTorch as it is."""
        torch.manual_seed(0)
        yield
        assert not sorix.torch.is_patched()
