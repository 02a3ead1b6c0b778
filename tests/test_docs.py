"""Examples in docstrings and documents run."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import spikefold
from spikefold.models import MODELS

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(spikefold.__path__, "spikefold.")
    if not module.name.endswith("__main__")
)


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an example registers is gone after it."""
    for name in ("two_layers",):
        monkeypatch.setitem(MODELS, name, MODELS["small"])
        del MODELS[name]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_examples_of_models() -> None:
    """They are made by a decorator, where doctest does not look."""
    found = [doctest.DocTestFinder().find(model, name, globs={}) for name, model in MODELS.items()]
    examples = [test for tests in found for test in tests if test.examples]
    assert [test.name for test in examples] == ["resnet20", "small"]
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_document_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"torch": torch}
    for block in python_blocks(ROOT / name):
        exec(block, names)


def test_public_names_have_docstrings() -> None:
    for name in spikefold.__all__:
        assert getattr(spikefold, name).__doc__, name
