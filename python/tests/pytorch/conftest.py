"""Tests of ``sorix.torch``: left out, visibly, if PyTorch is not installed."""

import importlib.util
import os

import pytest

if importlib.util.find_spec("torch") is None:
    if os.environ.get("SORIX_REQUIRE_TORCH"):
        raise RuntimeError("these tests need PyTorch, which is not installed")
    collect_ignore_glob = ["test_*.py"]

    def pytest_terminal_summary(terminalreporter):
        terminalreporter.section("left out")
        terminalreporter.write_line("SKIPPED tests/pytorch: PyTorch is not installed")

else:
    import sorix.torch
    import torch

    @pytest.fixture(autouse=True)
    def _fresh():
        """Each test begins with PyTorch as it is."""
        torch.manual_seed(0)
        yield
        assert not sorix.torch.is_patched()
