"""A CNN with the module structure of torchvision's ResNets becomes a spiking network.

python examples/convert.py [FOLDER]
"""

import sys
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import spikefold as sf


class Block(nn.Module):
    """A residual block as every CNN has it; one ReLU module is called twice."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential(
            nn.Conv2d(inputs, channels, 1, stride=2, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images to half the size."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.downsample(x)
        return self.relu(out)


def cnn() -> nn.Module:
    """A small artificial network."""
    stem = (nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    return nn.Sequential(*stem, Block(16, 32), *head)


def main(folder: Path) -> None:
    """Convert, train, fold, prove, save, load."""
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)

    network = sf.convert(cnn(), steps=4, norm="mpbn")
    print(sf.graph(network))
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for epoch in range(3):
        for places in torch.randperm(1500).split(64):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images[places]), labels[places])
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    network.eval()
    folded = sf.fold(network)
    record = sf.verify(network, folded, [(images[1500:], labels[1500:])])
    print(record)
    assert record.mismatches == 0

    sf.save(folded, folder / "converted.safetensors")
    again = sf.load(folder / "converted.safetensors", into=sf.convert(cnn(), steps=4))
    right = (again(images[1500:]).argmax(1) == labels[1500:]).float().mean()
    print(f"read again: {right:.1%} of {len(labels) - 1500} test images right")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
