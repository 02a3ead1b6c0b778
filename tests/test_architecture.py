"""The house rules that a tool can check."""

from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "spikefold"


def test_files_stay_short() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {path: n for path, n in lengths.items() if n > 420} == {}


def test_nothing_unpickles() -> None:
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert "torch.load(" not in text, path
        assert "import pickle" not in text, path
