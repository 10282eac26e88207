"""The examples of the documentation."""

import doctest
import re
import types
from pathlib import Path

import pytest
import sorix
import sorix._grad_mode
import sorix._sorix


@pytest.mark.parametrize("module", [sorix, sorix.nn, sorix._grad_mode], ids=lambda m: m.__name__)
def test_examples_of_modules(module):
    result = doctest.testmod(module)
    assert result.attempted > 3
    assert result.failed == 0


def test_examples_of_the_native_half():
    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name, value in vars(sorix._sorix).items():
        if getattr(value, "__doc__", None) and not name.startswith("__"):
            for test in finder.find(value, name, module=False, globs={}):
                runner.run(test)
    result = runner.summarize()
    assert result.attempted > 20
    assert result.failed == 0


README = Path(__file__).parents[1] / "README.md"


def blocks(heading):
    """The code of a section of the page."""
    section = README.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, flags=re.DOTALL)


@pytest.mark.parametrize("heading", ["numpy", "Tensors and modules"])
def test_the_code_of_the_page_runs(heading, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = blocks(heading)
    assert found
    exec("\n".join(found), {})


def test_what_users_call_says_what_it_does():
    for module in (sorix, sorix.nn):
        for name in module.__all__:
            value = getattr(module, name)
            if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType):
                assert value.__doc__, name
    for name, value in vars(sorix.Tensor).items():
        if not name.startswith("_"):
            assert value.__doc__, name
