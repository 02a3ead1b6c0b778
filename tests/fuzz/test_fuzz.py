"""A fixed number of attempts on each target, in a process of its own; `make fuzz` goes on."""

import subprocess
import sys

import pytest

from tests.fuzz.targets import TARGETS

# about ten seconds each
COUNTS = {
    "network_bytes": 1500,
    "network_header": 300,
    "network_tensors": 250,
    "exported_files": 300,
    "torch_programs": 150,
    "nir_files": 200,
    "recordings": 2000,
    "aedat4_recordings": 40,
    "images": 2000,
    "archives": 2000,
    "configurations": 250,
    "options": 60,
    "recipe_files": 400,
    "summaries": 1500,
    "pages": 25,
}

# attempts that once found a fault, and what they found
KEPT = [
    ("aedat4_recordings", 259),  # a message of the reader with a line end in it
    ("images", 31991),  # a TypeError of Pillow's
    ("summaries", 2240),  # runs of one setting with and without validation
    ("archives", 1018),  # an idx file that ends in its header
    ("pages", 11),  # an integer that no float can hold
]


@pytest.mark.parametrize(("name", "number"), KEPT)
def test_what_was_found_once(name: str, number: int) -> None:
    words = [name, "--first", str(number), "--count", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


@pytest.mark.parametrize("name", TARGETS)
def test_damage_is_told_in_one_line(name: str) -> None:
    words = [name, "--seconds", "300", "--count", str(COUNTS[name])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{COUNTS[name]} attempts" in done.stdout
