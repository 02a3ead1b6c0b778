"""Commands on network files: fold, verify, evaluate."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from spikefold.cli._configuration import DataName
from spikefold.cli._output import print_error, print_json, print_record, print_rows
from spikefold.cli._progress import shown_progress
from spikefold.data import (
    Dataset,
    Framing,
    Samples,
    SplitName,
    find_dataset,
    is_framed,
    load_dataset,
)
from spikefold.errors import ConfigError
from spikefold.folding import fold, fuse_conv_bn, verify
from spikefold.models import Network
from spikefold.saving import load, save
from spikefold.training import evaluate, like_weights, recalibrate, thresholds

By = Literal["time", "count"] | None


@dataclass(frozen=True)
class FoldOptions:
    """Fold a checkpoint's membrane normalization into its firing thresholds."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """network file with MPBN"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the folded network goes"""
    fuse: bool = False
    """also fuse each batch norm into its convolution (changes rounding: verify it)"""
    overwrite: bool = False
    """replace the output if it is there"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


@dataclass(frozen=True)
class VerifyOptions:
    """Compare every decision of every neuron of two networks; exit status 1 if one differs, or an
    output is NaN or infinite.
    """

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """network file before the transform"""
    folded: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDED")]
    """network file after it"""
    data: DataName
    """name of the data set"""
    root: Path | None = None
    """folder in which it lies"""
    frames_by: By = None
    """event frames of equal time or count of events; default: the data set's own"""
    split: SplitName = "test"
    """which of its samples"""
    batch_size: int = 128
    """samples at a time"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


@dataclass(frozen=True)
class EvaluateOptions:
    """Accuracy of a network file."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file, folded or not"""
    data: DataName
    """name of the data set"""
    root: Path | None = None
    """folder in which it lies"""
    frames_by: By = None
    """event frames of equal time or count of events; default: the data set's own"""
    split: SplitName = "test"
    """which of its samples"""
    batch_size: int = 128
    """samples at a time"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


@dataclass(frozen=True)
class RecalibrateOptions:
    """Estimate the running statistics of a checkpoint anew over all training samples."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT")]
    """network file, not folded"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the network with new statistics goes"""
    data: DataName
    """name of the data set"""
    root: Path | None = None
    """folder in which it lies"""
    frames_by: By = None
    """event frames of equal time or count of events; default: the data set's own"""
    batch_size: int = 128
    """samples at a time; a smaller last batch is left out"""
    overwrite: bool = False
    """replace the output if it is there"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


def _dataset(
    name: str, root: Path | None, network: Network, file: Path, by: By, split: SplitName
) -> Dataset:
    """The data set in the network's form, if it fits the network; only what the split needs."""
    size = None if find_dataset(name).framing is None else network.arguments.image_size
    steps = network.arguments.steps if is_framed(name) else None
    dataset = load_dataset(name, root=root, framing=Framing(steps, size, by), only=split)
    channels = dataset.split(split).shape[-3]
    if channels != network.arguments.in_channels:
        raise ConfigError(
            f"{file} takes {network.arguments.in_channels} input channels, "
            f"but {name} has {channels}"
        )
    if dataset.notes:
        print_error(f"note: {dataset.notes}")
    return dataset


def _count(samples: Samples, batch_size: int, rounded: Callable[[float], int] = math.ceil) -> int:
    """How many batches they are."""
    if batch_size < 1:
        raise ConfigError(f"--batch-size must be at least 1, got {batch_size}")
    return rounded(len(samples) / batch_size)


def require_free(path: Path, overwrite: bool) -> None:
    """Refuse to write over a file without being told to."""
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is there already: --overwrite replaces it")


def fold_command(words: list[str]) -> None:
    """Fold a checkpoint."""
    options = tyro.cli(FoldOptions, args=words, prog="spikefold fold")
    require_free(options.output, options.overwrite)
    folded = fold(load(options.checkpoint))
    if options.fuse:
        folded = fuse_conv_bn(folded)
    save(folded, options.output)
    layers = thresholds(folded)
    if options.json:
        print_json({"output": str(options.output), "layers": layers})
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


def verify_command(words: list[str]) -> None:
    """Compare two networks."""
    options = tyro.cli(VerifyOptions, args=words, prog="spikefold verify")
    one, other = load(options.checkpoint), load(options.folded)
    dataset = _dataset(
        options.data, options.root, one, options.checkpoint, options.frames_by, options.split
    )
    samples = dataset.split(options.split)
    batches = ((like_weights(one, x), y) for x, y in samples.batches(options.batch_size))
    with shown_progress().task("verify", _count(samples, options.batch_size)) as advance:
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
        print_rows(f"{record.samples} {options.split} samples of {options.data}", rows)
        print(f"largest difference of a logit: {record.max_output_difference:g}")
        if record.accuracy:
            print(f"accuracy: {record.accuracy[0]:.2%} and {record.accuracy[1]:.2%}")
        if any(record.not_finite):
            print(f"NaN or infinite: {record.not_finite[0]} and {record.not_finite[1]} outputs")
    if record.mismatches or any(record.not_finite):
        raise SystemExit(1)


def evaluate_command(words: list[str]) -> None:
    """Accuracy of a network file."""
    options = tyro.cli(EvaluateOptions, args=words, prog="spikefold evaluate")
    network = load(options.file)
    dataset = _dataset(
        options.data, options.root, network, options.file, options.frames_by, options.split
    )
    samples = dataset.split(options.split)
    with shown_progress().task("evaluate", _count(samples, options.batch_size)) as advance:
        result = evaluate(network, samples, options.batch_size, advance)
    record = {"file": str(options.file), "data": options.data, "split": options.split, **result}
    if options.json:
        print_json(record)
    else:
        print_record(str(options.file), record)


def recalibrate_command(words: list[str]) -> None:
    """Estimate statistics anew."""
    options = tyro.cli(RecalibrateOptions, args=words, prog="spikefold recalibrate")
    require_free(options.output, options.overwrite)
    network = load(options.checkpoint)
    dataset = _dataset(
        options.data, options.root, network, options.checkpoint, options.frames_by, "train"
    )
    total = _count(dataset.train, options.batch_size, math.floor)
    with shown_progress().task("recalibrate", total) as advance:
        new = recalibrate(network, dataset.train, options.batch_size, advance)
    save(new, options.output)
    record = {
        "output": str(options.output),
        "validation_before": evaluate(network, dataset.validation),
        "validation_after": evaluate(new, dataset.validation),
    }
    if options.json:
        print_json(record)
    else:
        print_record(str(options.output), record)
