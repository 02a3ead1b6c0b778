"""The examples run as a user runs them: in a process of their own, from another folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs(path: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.slow
@pytest.mark.data
def test_the_stream_takes_a_recording(tmp_path: Path) -> None:
    recording = ROOT.parent / "shared" / "data" / "recordings" / "tonic_sample_ncars.dat"
    if not recording.is_file():
        pytest.skip(f"no {recording}")
    example = [sys.executable, ROOT / "examples" / "stream.py", recording]
    done = subprocess.run(example, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("events more") == 6


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_uses_public_names_only(path: Path) -> None:
    text = path.read_text()
    assert "import spikefold as sf" in text
    assert "from spikefold" not in text
    assert "sf._" not in text


@pytest.mark.slow
def test_the_recipe_runs(tmp_path: Path) -> None:
    """As its head says, in the folder where it lies beside the data set's module."""
    for name in ("own_data.py", "own_recipe.toml"):
        shutil.copy(EXAMPLES[0].parent / name, tmp_path)
    command = [str(Path(sys.executable).with_name("spikefold")), "--import", "own_data", "run"]
    done = subprocess.run(
        [*command, "own_recipe.toml", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["recipe"], record["fold"]["mismatches"]) == ("own_recipe", 0)
    assert record["experiment"]["optimizer"]["name"] == "adamw"
    assert record["test"]["folded"] == record["test"]["trained"]
    assert record["test"]["folded"]["accuracy"] > 0.8
    assert (tmp_path / "runs" / "own_recipe" / "folded.safetensors").exists()
