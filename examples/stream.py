"""A network follows an event recording window by window, and says after each what it sees.

python examples/stream.py RECORDING    # AEDAT 4, EVT 2 or 3, Prophesee .dat, .bin, .bs2 or .npz
python examples/stream.py              # one that is made here

It is trained here, in seconds, to tell into which direction an edge moves.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import spikefold as sf
import spikefold.data

DIRECTIONS = ("right", "down", "left", "up")
SIZE, STEPS, MILLISECONDS = 16, 6, 300


def moving_bar(direction: int, generator: np.random.Generator) -> np.ndarray:
    """Events of a bright bar that crosses a sensor of 32x32: front brightens, end darkens."""
    begin, length = generator.integers(0, 12), generator.integers(8, 20)
    events = []
    for x in range(32):
        for y in range(begin, begin + length):
            t = (x + 1) * MILLISECONDS * 1000 // 40 + int(generator.integers(0, 1000))
            events += [(x, y, t, 1)] + [(x - 4, y, t, 0)] * (x >= 4)
    made = np.array(events, dtype=sf.data.EVENT)
    if direction >= 2:
        made["x"] = 31 - made["x"]
    if direction % 2:
        made["x"], made["y"] = made["y"].copy(), made["x"].copy()
    return made


def frames_of(events: np.ndarray, steps: int, sensor: tuple[int, int]) -> Tensor:
    """Frames `[T, 2, H, W]`: where something happened."""
    return torch.from_numpy(sf.data.to_frames(events, steps, sensor, (SIZE, SIZE)) > 0).float()


def trained() -> sf.models.Network:
    """A small network that knows the four directions, folded."""
    generator = np.random.default_rng(0)
    labels = torch.arange(160) % 4
    recordings = [moving_bar(label, generator) for label in labels.tolist()]
    frames = torch.stack([frames_of(events, STEPS, (32, 32)) for events in recordings], 1)
    network = sf.models.small(4, in_channels=2, image_size=SIZE, width=0.25, steps=STEPS)
    optimizer = torch.optim.AdamW(network.parameters(), 0.01)
    for _ in range(8):
        for places in torch.randperm(len(labels)).split(24):
            optimizer.zero_grad()
            F.cross_entropy(network(frames[:, places]), labels[places]).backward()
            optimizer.step()
    return sf.fold(network.eval())


@torch.no_grad()
def follow(network: sf.models.Network, path: Path) -> str:
    """Read a recording in windows of equal duration, one step of the network for each."""
    recording = sf.data.read_recording(path)
    events = recording.events[np.argsort(recording.events["t"], kind="stable")]
    edges = np.linspace(events["t"][0], events["t"][-1] + 1, STEPS + 1)
    print(f"{path.name}: {recording.format}, {len(events):,} events")
    total, state, name = torch.zeros(1, 4), None, ""
    for t, window in enumerate(np.split(events, np.searchsorted(events["t"], edges[1:-1]))):
        logits, state = network.step(frames_of(window, 1, recording.sensor), state)
        total += logits  # their mean is what the network gives for the whole sequence
        confidence = (total / (t + 1)).softmax(1)[0]
        name = DIRECTIONS[int(confidence.argmax())]
        print(f"  {len(window):,} events more: {name} ({confidence.max():.0%})")
    return name


def main(path: Path | None) -> None:
    """Train, then follow the recording, or one that is made up."""
    torch.manual_seed(0)
    network = trained()
    if path is not None:
        follow(network, path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bar.npz"
        np.savez(path, events=moving_bar(2, np.random.default_rng(1)))
        assert follow(network, path) == "left"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
