"""Commands on network files: fold, verify, evaluate."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from spikefold.cli._output import ShownProgress, print_json, print_rows
from spikefold.data import Samples, SplitName, load_dataset
from spikefold.errors import ConfigError
from spikefold.folding import fold, fuse_conv_bn, verify
from spikefold.models import Network
from spikefold.saving import load, save
from spikefold.training import evaluate, thresholds


@dataclass(frozen=True)
class FoldOptions:
    """Fold a checkpoint's membrane normalization into its firing thresholds."""

    checkpoint: tyro.conf.Positional[Path]
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
    """Compare every decision of every neuron of two networks; exit status 1 if one differs."""

    checkpoint: tyro.conf.Positional[Path]
    """network file before the transform"""
    folded: tyro.conf.Positional[Path]
    """network file after it"""
    data: str
    """name of the data set"""
    split: SplitName = "test"
    """which of its samples"""
    batch_size: int = 128
    """samples at a time"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


@dataclass(frozen=True)
class EvaluateOptions:
    """Accuracy of a network file."""

    file: tyro.conf.Positional[Path]
    """network file, folded or not"""
    data: str
    """name of the data set"""
    split: SplitName = "test"
    """which of its samples"""
    batch_size: int = 128
    """samples at a time"""
    json: bool = False
    """print one JSON object and nothing else on standard output"""


def _samples(name: str, split: SplitName, network: Network, file: Path) -> Samples:
    """The samples, if they fit the network."""
    dataset = load_dataset(name)
    channels = dataset.test.shape[-3]
    if channels != network.arguments.in_channels:
        raise ConfigError(
            f"{file} takes {network.arguments.in_channels} input channels, "
            f"but {name} has {channels}"
        )
    return dataset.split(split)


def fold_command(words: list[str]) -> None:
    """Fold a checkpoint."""
    options = tyro.cli(FoldOptions, args=words, prog="spikefold fold")
    if options.output.exists() and not options.overwrite:
        raise ConfigError(f"{options.output} is there already: --overwrite replaces it")
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
    samples = _samples(options.data, options.split, one, options.checkpoint)
    batches = list(samples.batches(options.batch_size))
    with ShownProgress().task("verify", len(batches)) as advance:
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
    if record.mismatches:
        raise SystemExit(1)


def evaluate_command(words: list[str]) -> None:
    """Accuracy of a network file."""
    options = tyro.cli(EvaluateOptions, args=words, prog="spikefold evaluate")
    network = load(options.file)
    samples = _samples(options.data, options.split, network, options.file)
    result: dict[str, Any] = evaluate(network, samples, options.batch_size)
    record = {"file": str(options.file), "data": options.data, "split": options.split, **result}
    if options.json:
        print_json(record)
    else:
        print_rows(str(options.file), [(key, str(value)) for key, value in record.items()])
