"""The house rules that a tool can check."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "spikefold"


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {path: n for path, n in lengths.items() if n > 420} == {}


def test_nothing_unpickles() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("torch.load"):
                assert "weights_only=True" in ast.unparse(node), path
