"""The command that runs a network on one recording or image."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from torch import Tensor, nn

from spikefold.cli._inputs import RuntimeName, assumed_spec, load_network, require_runs_by, run_by
from spikefold.cli._output import print_error, print_json, print_rows
from spikefold.cli._outputs import require_writable
from spikefold.cli._parsing import Device, Json, parse
from spikefold.data import Framing, InputSpec, read_input
from spikefold.errors import ConfigError
from spikefold.folding import evaluation
from spikefold.models import Network
from spikefold.nn import Call, observing
from spikefold.ranges import require_within
from spikefold.reports import plot_input
from spikefold.training import like_weights

SHOWN = 3  # classes


@dataclass(frozen=True)
class PredictOptions:
    """Class, confidence and spike counts of one event recording or image."""

    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file, folded or not, or a run's folder"""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """event recording or image file"""
    steps: int | None = None
    """time steps; default: the network's own"""
    by: Literal["time", "count"] | None = None
    """events are cut into frames of equal duration, or of equal numbers; default: as in training"""
    sensor: tuple[int, int] | None = None
    """width and height of the event camera; default: as in training, or as the file says"""
    device: Device = "cpu"
    runtime: RuntimeName | None = None
    """run it by onnxruntime, openvino or onnx's reference, checked on this file; default: torch;
    spikes are not counted then"""
    picture: Path | None = None
    """PNG file to draw what the network saw into"""
    json: Json = False

    def __post_init__(self) -> None:
        require_within("predict", self, steps="[1, 10000]")


def predict_command(words: list[str]) -> None:
    """Run a network on one file."""
    options = parse(PredictOptions, words, "spikefold predict")
    if options.picture is not None:
        require_writable(options.picture, ".png")
    require_runs_by(options.runtime, options.device)
    network = load_network(options.network, options.device)
    spec = _spec(network, options)
    x, what = read_input(options.file, spec)
    names = spec.classes or tuple(map(str, range(network.arguments.num_classes)))
    steps = None
    if spec.framing.steps is None:
        steps = options.steps or network.arguments.steps
        if steps is None:
            raise ConfigError(f"{options.network} does not know its time steps: give --steps")
    about: dict[str, Any] = {}
    running: nn.Module = network
    if options.runtime is not None:
        running, about = run_by(options.runtime, network, x, steps)
    result = _run(running, x, steps, names)
    record = {"file": str(options.file), "input": what, **about, **result}
    if options.picture:
        seen = x.squeeze(1) if x.ndim == 5 else x[0]
        title = f"{options.file.name}: {record['class']} ({record['confidence']:.0%})"
        plot_input(seen.cpu().numpy(), title, options.picture)
    if options.json:
        print_json(record)
        return
    rows = [(key, str(record[key])) for key in ("input", "class")]
    rows.append(("confidence", f"{record['confidence']:.2%}"))
    rows += [(f"next: {one['class']}", f"{one['confidence']:.2%}") for one in record["runners_up"]]
    rows += [(f"spikes of {name}", f"{count:,}") for name, count in record["spikes"].items()]
    print_rows(str(options.file), rows)


def _spec(network: Network, options: PredictOptions) -> InputSpec:
    """How the file is read: as the network says, but for what the options say."""
    spec = network.input_spec
    if spec is None:
        spec = assumed_spec(network, options.steps)
        print_error(
            f"note: {options.network} does not say how its input is read (it was not written by "
            "`spikefold train`, or by an older one): sizes are the network's, images are scaled "
            "to their shorter side"
        )
    if spec.framing.steps is None:
        if options.by or options.sensor:
            raise ConfigError(
                f"{options.network} takes images: --by and --sensor are for recordings"
            )
        return spec
    asked = Framing(options.steps, by=options.by, sensor=options.sensor)
    return replace(spec, framing=asked.over(spec.framing).over(Framing(by="time")))


def _run(
    network: nn.Module, x: Tensor, steps: int | None, names: tuple[str, ...]
) -> dict[str, Any]:
    """Classes with their confidences, and the spikes of every layer."""
    spikes: dict[str, int] = {}

    def see(name: str, call: Call) -> None:
        spikes[name] = spikes.get(name, 0) + int(call.fired.spikes.sum())

    with evaluation(network) as network, observing(network, see):
        confidence = network(like_weights(network, x), steps=steps).softmax(1)[0]
    best = confidence.argsort(descending=True)[:SHOWN].tolist()
    ranked = [
        {"class": names[place], "label": place, "confidence": confidence[place].item()}
        for place in best
    ]
    return {**ranked[0], "runners_up": ranked[1:], "spikes": spikes}
