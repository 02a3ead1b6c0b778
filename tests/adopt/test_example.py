"""The example, as a user runs it."""

import subprocess
import sys
from pathlib import Path

import torch

import spikefold as sf

EXAMPLE = Path(__file__).parents[2] / "examples" / "from_official.py"


def test_with_a_checkpoint_and_without(tmp_path: Path) -> None:
    checkpoint = tmp_path / "res20.pth"
    network = sf.models.resnet20(num_classes=7, width=0.0625)
    torch.save(sf.adopt.to_official(network), checkpoint)
    for words, classes in (([], 10), ([str(checkpoint)], 7)):
        command = [sys.executable, str(EXAMPLE), *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert "0 of " in done.stdout
        assert "decisions differ after the fold" in done.stdout
        assert "the same logits" in done.stdout
        folded = sf.load(tmp_path / "folded.safetensors")
        assert (folded.arguments.num_classes, folded.transforms) == (classes, ("fold",))
