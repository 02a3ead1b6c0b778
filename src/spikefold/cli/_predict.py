"""The command that runs a network on one recording or image."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from spikefold.cli._output import print_json, print_rows
from spikefold.data import read_recording, to_frames
from spikefold.errors import ConfigError, DataError
from spikefold.folding import evaluation
from spikefold.models import Network
from spikefold.nn import Call, observing
from spikefold.reports import plot_input
from spikefold.saving import load
from spikefold.training import like_weights

SHOWN = 3  # classes


@dataclass(frozen=True)
class PredictOptions:
    """Class, confidence and spike counts of one event recording or image."""

    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file, folded or not"""
    recording: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """event recording (networks of 2 channels) or image file (1 or 3 channels)"""
    steps: int | None = None
    """time steps; default: the network's own"""
    by: Literal["time", "count"] = "time"
    """events are cut into frames of equal duration, or of equal numbers"""
    picture: Path | None = None
    """PNG file to draw what the network saw into"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


def predict_command(words: list[str]) -> None:
    """Run a network on one file."""
    options = tyro.cli(PredictOptions, args=words, prog="spikefold predict")
    network = load(options.network)
    steps = options.steps or network.arguments.steps
    if steps is None:
        raise ConfigError(f"{options.network} does not know its time steps: give --steps")
    size = network.arguments.image_size
    if network.arguments.in_channels == 2:
        recording = read_recording(options.recording)
        frames = to_frames(recording.events, steps, recording.sensor, (size, size), options.by)
        x = torch.from_numpy(frames).float().unsqueeze(1)
        what = (
            f"{recording.format}, {len(recording.events):,} events, "
            f"{recording.sensor[0]}x{recording.sensor[1]}"
        )
        record = _run(network, x, None)
    else:
        x = _read_image(options.recording, network.arguments.in_channels, size)
        what = f"image as {size}x{size}"
        record = _run(network, x, steps)
    record = {"recording": str(options.recording), "input": what, **record}
    if options.picture:
        seen = x.squeeze(1) if x.ndim == 5 else x[0]
        title = f"{options.recording.name}: class {record['class']} ({record['confidence']:.0%})"
        plot_input(seen.numpy(), title, options.picture)
    if options.json:
        print_json(record)
        return
    rows = [(key, str(record[key])) for key in ("input", "class")]
    rows.append(("confidence", f"{record['confidence']:.2%}"))
    rows += [(f"next: {c}", f"{p:.2%}") for c, p in record["runners_up"]]
    rows += [(f"spikes of {name}", f"{count:,}") for name, count in record["spikes"].items()]
    print_rows(str(options.recording), rows)


def _run(network: Network, x: Tensor, steps: int | None) -> dict[str, Any]:
    """Classes with their confidences, and the spikes of every layer."""
    spikes: dict[str, int] = {}

    def see(name: str, call: Call) -> None:
        spikes[name] = spikes.get(name, 0) + int(call.fired.spikes.sum())

    with evaluation(network) as network, observing(network, see):
        confidence = network(like_weights(network, x), steps=steps).softmax(1)[0]
    best = confidence.argsort(descending=True)[:SHOWN].tolist()
    ranked = [(place, confidence[place].item()) for place in best]
    return {
        "class": ranked[0][0],
        "confidence": ranked[0][1],
        "runners_up": ranked[1:],
        "spikes": spikes,
    }


def _read_image(path: Path, channels: int, size: int) -> Tensor:
    """An image file as `[1, C, size, size]` in [0, 1]."""
    try:
        with Image.open(path) as image:
            converted = image.convert("L" if channels == 1 else "RGB").resize((size, size))
            pixels = np.asarray(converted, dtype=np.float32) / 255
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(
            f"{path}: no image, or damaged; a network of {channels} channels takes image files"
        ) from error
    return torch.from_numpy(pixels.reshape(size, size, -1)).permute(2, 0, 1)[None]
