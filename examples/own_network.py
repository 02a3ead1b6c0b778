"""A network of your own: trained, folded, proven, saved, and read again.

python examples/own_network.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import spikefold as sf


class MyNet(nn.Module):
    """Any module will do: units in rows, layers as attributes, functions of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = sf.SpikingLayer(
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            sf.LIF(norm=sf.MPBN(16)),
        )
        self.conv = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(32)
        self.lif = sf.PLIF(norm=sf.MPBN(32))
        self.readout = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images `[N, 1, 8, 8]`, shown for four steps."""
        spikes = self.stem(images.expand(4, -1, -1, -1, -1))
        currents = self.bn(self.conv(spikes.flatten(0, 1))).unflatten(0, spikes.shape[:2])
        return self.readout(self.lif(currents).mean((-2, -1))).mean(0)


def main(folder: Path) -> None:
    """From training to a file that another process reads."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)

    network = MyNet()
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for epoch in range(3):
        for places in torch.randperm(1500).split(64):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images[places]), labels[places])
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    network.eval()
    test = [(images[1500:], labels[1500:])]
    folded = sf.fold(network)
    record = sf.verify(network, folded, test)
    print(record)
    assert record.mismatches == 0
    fused = sf.fuse_conv_bn(folded)  # changes rounding: see what that moves
    print(f"fused: {sf.verify(folded, fused, test).mismatch_rate:.1e} of the decisions differ")

    sf.save(fused, folder / "mine.safetensors")
    again = sf.load(folder / "mine.safetensors", into=MyNet())
    right = (again(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    print(f"read again: {right:.1%} of {len(labels) - 1500} test images right")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
