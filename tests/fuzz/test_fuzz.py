"""A fixed number of attempts on each target, in a process of its own; `make fuzz` goes on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.__main__ import chance, outcome
from tests.fuzz.targets import TARGETS

# about five seconds each; `make fuzz` has all the time it is given
COUNTS = {
    "network_bytes": 750,
    "network_header": 150,
    "network_tensors": 125,
    "exported_files": 150,
    "torch_programs": 75,
    "nir_files": 100,
    "recordings": 1000,
    "aedat4_recordings": 20,
    "images": 1000,
    "archives": 1000,
    "configurations": 125,
    "options": 30,
    "recipe_files": 200,
    "summaries": 750,
    "pages": 12,
}

# attempts that once found a fault, and what they found
KEPT = [
    ("aedat4_recordings", 259),  # a message of the reader with a line end in it
    ("images", 31991),  # a TypeError of Pillow's
    ("summaries", 2240),  # runs of one setting with and without validation
    ("archives", 1018),  # an idx file that ends in its header
    ("pages", 11),  # an integer that no float can hold
]


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(("name", "number"), KEPT)
def test_what_was_found_once(name: str, number: int, tmp_path: Path) -> None:
    assert outcome(TARGETS[name](tmp_path), chance(name, 0, number)) is not None


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_told_in_one_line(name: str) -> None:
    words = [name, "--seconds", "300", "--count", str(COUNTS[name])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{COUNTS[name]} attempts" in done.stdout
