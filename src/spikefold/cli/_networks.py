"""Commands on network files: fold, fuse, verify, evaluate, recalibrate."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import nn

from spikefold.cli._inputs import (
    TRAINED,
    DataOptions,
    RuntimeName,
    load_data_for,
    load_network,
    network_file,
    require_runs_by,
    run_by,
)
from spikefold.cli._output import print_error, print_json, print_record, print_rows
from spikefold.cli._outputs import require_network_file
from spikefold.cli._parsing import Device, Json, Overwrite, parse
from spikefold.cli._progress import shown_progress
from spikefold.costs import norms_left
from spikefold.data import SplitName
from spikefold.errors import ConfigError
from spikefold.folding import fold, fuse_conv_bn, is_fusable, verify
from spikefold.models import per_step
from spikefold.ranges import require_within
from spikefold.saving import save
from spikefold.training import evaluate, like_weights, recalibrate, thresholds

On = Annotated[DataOptions, tyro.conf.arg(name="")]
NOTHING_ASKED = DataOptions()
CHECKED = 32  # samples on which another runtime is checked


@dataclass(frozen=True)
class FoldOptions:
    """Fold a checkpoint's membrane normalization into its firing thresholds."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """network file with MPBN; of a run's folder the trained network is taken"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the folded network goes"""
    device: Device = "cpu"
    fuse: bool = False
    """then fuse it, as the command fuse does (changes rounding: verify it)"""
    overwrite: Overwrite = False
    json: Json = False


@dataclass(frozen=True)
class FuseOptions:
    """Fuse each norm after a connection into its weights, or where it has a map of each step into a
    gain and a shift. That changes rounding: verify it.
    """

    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file, folded or not; or a run's folder, of which the folded network is taken, or the
    trained one where none was folded"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the fused network goes"""
    device: Device = "cpu"
    overwrite: Overwrite = False
    json: Json = False


@dataclass(frozen=True)
class VerifyOptions:
    """Compare every decision of every neuron of two networks; exit status 1 if one differs, or an
    output is NaN or infinite.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """network file before the transform; of a run's folder the trained network is taken"""
    folded: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDED")]
    """network file after it; of a run's folder the folded network is taken"""
    on: On = NOTHING_ASKED
    split: SplitName = "test"
    """which of its samples"""
    json: Json = False


@dataclass(frozen=True)
class EvaluateOptions:
    """Accuracy of a network file."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file, folded or not; or a run's folder, of which the folded network is taken, or the
    trained one where none was folded"""
    on: On = NOTHING_ASKED
    split: SplitName = "test"
    """which of its samples"""
    runtime: RuntimeName | None = None
    """run it by onnxruntime, openvino or onnx's reference, checked on the first samples; default:
    torch"""
    json: Json = False


@dataclass(frozen=True)
class RecalibrateOptions:
    """Estimate the running statistics of a checkpoint again over all training samples."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """network file, not folded; of a run's folder the trained network is taken"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the network with new statistics goes"""
    on: On = NOTHING_ASKED
    seed: int = 0
    """of the order in which they are taken"""
    per_step: bool = False
    """first give each time step statistics of its own, as it had of each batch in training"""
    overwrite: Overwrite = False
    json: Json = False

    def __post_init__(self) -> None:
        require_within("recalibrate", self, seed="[0, 1e12]")


def fold_command(words: list[str]) -> None:
    """Fold a checkpoint."""
    options = parse(FoldOptions, words, "spikefold fold")
    require_network_file(options.output, options.overwrite)
    folded = fold(load_network(options.checkpoint, options.device, TRAINED))
    if options.fuse and is_fusable(folded):
        folded = fuse_conv_bn(folded)
    elif options.fuse:
        print_error("note: folded only: no norm after a connection is left to be fused")
    save(folded, options.output)
    layers = thresholds(folded)
    if options.json:
        left = norms_left(folded)
        print_json({"output": str(options.output), "layers": layers, "norms_left": left})
        return
    rows = [
        (
            name,
            f"{len(layer['theta'])} thresholds",
            f"{layer['negative_polarity']} of negative polarity",
            f"{sum(isinstance(value, str) for value in layer['theta'])} constant",
        )
        for name, layer in layers.items()
    ]
    print_rows(f"folded: {options.output}", rows)
    _print_left(folded)


def fuse_command(words: list[str]) -> None:
    """Fuse the norms after connections."""
    options = parse(FuseOptions, words, "spikefold fuse")
    require_network_file(options.output, options.overwrite)
    fused = fuse_conv_bn(load_network(options.network, options.device))
    save(fused, options.output)
    if options.json:
        print_json({"output": str(options.output), "norms_left": norms_left(fused)})
        return
    print(f"fused: {options.output}")
    _print_left(fused)


def _print_left(network: nn.Module) -> None:
    """The normalizations that a network still computes."""
    left = norms_left(network)
    for name, row in left.items():
        count, operations = row["layers"], row["operations"]
        print(f"left: {name} in {count} layers, {operations} operations a neuron and step each")
    if not left:
        print("left: no normalization")


def verify_command(words: list[str]) -> None:
    """Compare two networks."""
    options = parse(VerifyOptions, words, "spikefold verify")
    on = options.on
    files = network_file(options.checkpoint, TRAINED), network_file(options.folded)
    if files[0].resolve() == files[1].resolve():
        raise ConfigError(f"verify: both networks are {files[0]}: nothing would be proved")
    one, other = (load_network(file, on.device) for file in files)
    if one.transforms == other.transforms:
        print_error(
            f"note: both networks are {' and '.join(one.transforms) or 'as trained'}: this "
            "compares two networks, and proves no transform"
        )
    dataset = load_data_for(one, options.checkpoint, on, options.split)
    samples = dataset.split(options.split)
    batches = ((like_weights(one, x), y) for x, y in samples.batches(on.batch_size))
    with shown_progress().task("verify", math.ceil(len(samples) / on.batch_size)) as advance:
        record = verify(one, other, batches, on_batch=advance)
    if options.json:
        print_json(record.to_dict())
    else:
        rows: list[tuple[str, ...]] = [("layer", "decisions", "differ", "firing rate")]
        rows += [
            (name, f"{r.compared:,}", f"{r.mismatches:,}", f"{r.firing_rate:.3f}")
            for name, r in record.layers.items()
        ]
        rows.append(("all", f"{record.spikes:,}", f"{record.mismatches:,}", ""))
        count = f"{record.samples} {options.split} samples of {dataset.name}"
        print_rows(f"{files[0]} and {files[1]}: {count}", rows)
        print(f"largest difference of a logit: {record.max_output_difference:g}")
        if record.accuracy:
            print(f"accuracy: {record.accuracy[0]:.2%} and {record.accuracy[1]:.2%}")
        if any(record.not_finite):
            print(f"NaN or infinite: {record.not_finite[0]} and {record.not_finite[1]} outputs")
    if record.mismatches or any(record.not_finite):
        raise SystemExit(1)


def evaluate_command(words: list[str]) -> None:
    """Accuracy of a network file."""
    options = parse(EvaluateOptions, words, "spikefold evaluate")
    require_runs_by(options.runtime, options.on.device)
    network = load_network(options.file, options.on.device)
    dataset = load_data_for(network, options.file, options.on, options.split)
    samples, size = dataset.split(options.split), options.on.batch_size
    running: nn.Module = network
    about: dict[str, Any] = {}
    if options.runtime is not None:
        first, _ = next(samples.batches(CHECKED))
        running, about = run_by(options.runtime, network, first)
    with shown_progress().task("evaluate", math.ceil(len(samples) / size)) as advance:
        result = evaluate(running, samples, size, advance)
    record: dict[str, Any] = {
        "file": str(network_file(options.file)),
        "data": dataset.name,
        "split": options.split,
        **about,
        **result,
    }
    if options.json:
        print_json(record)
    else:
        print_record(str(options.file), record | {"accuracy": f"{result['accuracy']:.2%}"})


def recalibrate_command(words: list[str]) -> None:
    """Estimate statistics again."""
    options = parse(RecalibrateOptions, words, "spikefold recalibrate")
    require_network_file(options.output, options.overwrite)
    on = options.on
    network = load_network(options.checkpoint, on.device, TRAINED)
    start = per_step(network) if options.per_step else network
    dataset = load_data_for(network, options.checkpoint, on, "train")
    with shown_progress().task("recalibrate", len(dataset.train) // on.batch_size) as advance:
        new = recalibrate(start, dataset.train, on.batch_size, on_batch=advance, seed=options.seed)
    record: dict[str, Any] = {"output": str(options.output)}
    if len(dataset.validation):
        for name, one in (("validation_before", network), ("validation_after", new)):
            record[name] = evaluate(one, dataset.validation, on.batch_size)
    save(new, options.output)
    if options.json:
        print_json(record)
    else:
        print_record(str(options.output), record)
