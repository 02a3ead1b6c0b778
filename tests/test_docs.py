"""Examples in docstrings and documents run."""

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def blocks(path: Path) -> list[tuple[str, str]]:
    """What a reader would paste: language and text."""
    return re.findall(r"```(python|bash)\n(.*?)```", path.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("README.md", marks=pytest.mark.slow),
        "CONTRIBUTING.md",
        pytest.param("docs/deploy.md", marks=pytest.mark.slow),
    ],
)
def test_document_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after another, in a fresh directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    names: dict[str, object] = {}
    found = blocks(ROOT / name)
    assert found
    for language, text in found:
        if language == "python":
            exec(text, names)
        else:
            subprocess.run(["bash", "-e", "-c", text], check=True, capture_output=True)


def test_public_names_have_docstrings() -> None:
    for name in spikefold.__all__:
        assert getattr(spikefold, name).__doc__, name
