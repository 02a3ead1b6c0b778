"""A checkpoint of the official MPBN code becomes a folded network file, and the fold is proven.

python examples/from_official.py res20_mpbn.pth    # a resnet20 that was trained with that code
python examples/from_official.py                   # a small one with made-up weights
"""

import sys
import tempfile
from pathlib import Path

import torch

import spikefold as sf


def made_up(path: Path) -> None:
    """Write a checkpoint as `torch.save(model.state_dict(), path)` does in the official code."""
    network = sf.models.resnet20(num_classes=10, width=0.125, steps=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05)
    for _ in range(2):
        images, labels = torch.rand(8, 3, 32, 32), torch.randint(10, (8,))
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
    torch.save(sf.adopt.to_official(network), path)


def main(path: Path) -> None:
    """Import, fold, verify, save, load."""
    # T is not in the file, and the official code standardizes images before the network sees them
    network = sf.from_official(path, "resnet20", steps=4, standardize="cifar10")
    print(f"{path.name}: {network.arguments}")
    images = torch.rand(16, 3, 32, 32)  # in [0, 1], as data sets give them
    folded = sf.fold(network)
    record = sf.verify(network, folded, [images])
    print(f"{record.mismatches} of {record.spikes:,} decisions differ after the fold")
    sf.save(folded, "folded.safetensors")
    with torch.no_grad():
        same = torch.equal(sf.load("folded.safetensors")(images), network(images))
    print(f"folded.safetensors: {'the same logits' if same else 'other logits'}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            made_up(Path(folder) / "made-up.pth")
            main(Path(folder) / "made-up.pth")
