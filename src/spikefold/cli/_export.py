"""Commands on what leaves the framework: export, check."""

import math
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from spikefold.cli._configuration import one_of
from spikefold.cli._inputs import (
    assumed_spec,
    load_data_for,
    load_network,
    network_file,
)
from spikefold.cli._networks import NOTHING_ASKED, On
from spikefold.cli._output import print_error, print_json, print_record, print_rows, shown
from spikefold.cli._outputs import KINDS, require_free
from spikefold.cli._parsing import NONE_GIVEN, Json, Overwrite, parse
from spikefold.cli._progress import shown_progress
from spikefold.data import SplitName
from spikefold.errors import ConfigError
from spikefold.export import (
    NIR_RUNTIMES,
    RUNTIMES,
    TORCH,
    Check,
    Differences,
    Layout,
    NIRTarget,
    check,
    describe,
    file_hash,
    require_runtime,
    to_nir,
    to_onnx,
    to_torch,
)
from spikefold.models import Network
from spikefold.nn import MembraneNorm
from spikefold.ranges import require_within
from spikefold.records import FOLDED

AnyRuntimeName = Annotated[str, tyro.conf.arg(metavar=one_of((*RUNTIMES, TORCH, *NIR_RUNTIMES)))]


@dataclass(frozen=True)
class ExportOptions:
    """Write a folded network for other software; `check` proves the file."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file, folded; or a run's folder, of which the folded network is taken"""
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """where the exported network goes"""
    to: Literal["onnx", "torch", "nir"] | None = None
    """kind of file: ONNX, a torch.export program that runs where spikefold is not installed, or
    NIR; default: as the output's name ends (.onnx, .pt2, .nir), else ONNX"""
    target: Annotated[NIRTarget | None, tyro.conf.arg(name="for")] = None
    """NIR: whose importer shall compute it rightly; default: NIR as such"""
    layout: Layout = "merged"
    """merged: all time steps in one graph; scan (ONNX): frames of any number of steps; step: one
    step, with potentials in and out"""
    fuse: bool = False
    """fuse each batch norm into its convolution (faster; changes rounding)"""
    spikes: Annotated[tuple[str, ...], NONE_GIVEN] = ()
    """ONNX: neurons whose spikes are outputs too, as features.0.lif"""
    steps: int | None = None
    """time steps an image is shown; default: the network's own"""
    compile: bool = False
    """torch: compile it with AOTInductor for this machine; takes minutes"""
    overwrite: Overwrite = False
    json: Json = False

    def __post_init__(self) -> None:
        require_within("export", self, steps="[1, 10000]")
        named = KINDS.get(self.output.suffix)
        if self.to and named and self.to != named:
            raise ConfigError(f"export: --to {self.to}, but {self.output} is named as {named}")
        if self.spikes and self.kind != "onnx":
            raise ConfigError("export: --spikes is for --to onnx")
        if self.compile and self.kind != "torch":
            raise ConfigError("export: --compile is for --to torch")
        if self.target and self.kind != "nir":
            raise ConfigError("export: --for is for --to nir")
        if self.kind == "nir" and (self.layout != "merged" or self.fuse):
            raise ConfigError("export: NIR is one step, fused: leave out --layout and --fuse")

    @property
    def kind(self) -> str:
        """Of file, as it is asked for or named."""
        return self.to or KINDS.get(self.output.suffix, "onnx")


@dataclass(frozen=True)
class CheckOptions:
    """Run an exported file and its network side by side; exit status 1 if anything differs that
    rounding does not explain.
    """

    exported: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="EXPORTED")]
    """ONNX or NIR file or torch program that `export` wrote"""
    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file that was exported; or a run's folder, of which the folded network is taken"""
    on: On = NOTHING_ASKED
    split: SplitName = "test"
    """which of its samples"""
    samples: int | None = None
    """how many of them, evenly spread; default: all"""
    runtime: AnyRuntimeName | None = None
    """what runs the exported file: onnxruntime (default), openvino, or onnx's own definition
    (slow); of a NIR file the library it was written for (default), or spikefold; of a torch
    program torch"""
    json: Json = False

    def __post_init__(self) -> None:
        require_within("check", self, samples="[1, 1e9]")
        if self.on.device != "cpu":
            raise ConfigError("check: exported files are compared on the CPU: leave out --device")


def export_command(words: list[str]) -> None:
    """Write a network for other software."""
    options = parse(ExportOptions, words, "spikefold export")
    require_free(options.output, options.overwrite)
    network = _load(options)
    record: dict[str, Any] = {"output": str(options.output), "to": options.kind}
    if options.kind == "nir":
        to_nir(
            network,
            options.output,
            target=options.target,
            steps=options.steps,
            source=network_file(options.file),
        )
        record |= {"for": options.target}
    else:
        _write(network, options)
        record |= {"layout": options.layout, "fused": options.fuse}
    record |= {"bytes": options.output.stat().st_size}
    if options.json:
        print_json(record)
    else:
        print_record(str(options.output), record)


def _write(network: Network, options: ExportOptions) -> None:
    """An ONNX file or a torch program."""
    asked: dict[str, Any] = {
        "layout": options.layout,
        "fuse": options.fuse,
        "steps": options.steps,
        "source": None if options.compile else network_file(options.file),
    }
    if options.kind == "onnx":
        to_onnx(network, options.output, spikes=options.spikes, **asked)
    else:
        to_torch(network, options.output, compile=options.compile, **asked)


def _load(options: ExportOptions) -> Network:
    """The network, which says how its input is read."""
    network = load_network(options.file, "cpu")
    if any(isinstance(module, MembraneNorm) for module in network.modules()):
        raise ConfigError(f"{options.file} is not folded: fold it first: {_fold(options.file)}")
    if network.input_spec is None:
        network.input_spec = assumed_spec(network, options.steps)
        print_error(
            f"note: {options.file} does not say how its input is read: sizes are the network's"
        )
    return network


def _fold(path: Path) -> str:
    """The command that folds a file, or the network of a run, to where nothing is."""
    file = network_file(path)
    names = (FOLDED, *(f"{file.stem}-folded{n or ''}.safetensors" for n in range(1000)))
    output = next((p for p in map(file.with_name, names) if not p.exists()), file)
    return shlex.join(["spikefold", "fold", str(file), "-o", str(output)])


def check_command(words: list[str]) -> None:
    """Compare an exported file with its network."""
    options = parse(CheckOptions, words, "spikefold check")
    on = options.on
    exported = describe(options.exported)
    network = load_network(options.file, "cpu")
    shape = (network.input_spec or assumed_spec(network)).shape
    # before anything is read or downloaded
    require_runtime(options.exported, options.runtime)
    exported.require_fit(options.exported, shape, f"{list(shape)} of {options.file}")
    dataset = load_data_for(network, options.file, on, options.split)
    samples = dataset.split(options.split)
    if options.samples is not None:
        samples = samples.spread(options.samples)
    batches = samples.batches(on.batch_size)
    with shown_progress().task("check", math.ceil(len(samples) / on.batch_size)) as advance:
        record = check(
            network, options.exported, batches, runtime=options.runtime, on_batch=advance
        )
    if record.source and record.source != file_hash(network_file(options.file)):
        print_error(f"note: {options.exported} was exported from another file than {options.file}")
    if options.json:
        about = {"exported": str(options.exported), "data": dataset.name, "split": options.split}
        print_json({**about, **record.to_dict()})
    else:
        print_rows(
            f"{record.samples} {options.split} samples of {dataset.name}, {record.runtime}",
            _rows(record),
        )
        print(record)
    if not record.passed:
        raise SystemExit(1)


ROWS = {
    "decisions": "decisions compared",
    "differ": "... that differ",
    "first": "first flips",
    "beyond": "... that rounding does not explain",
    "largest": "... largest distance, share of the bound",
    "cascades": "cascades",
    "samples": "samples with any difference",
    "classes": "classes that differ",
    "unexplained": "... in samples without a first flip",
    "not_finite": "outputs that are NaN or infinite",
    "unseen": "samples whose output moves when spikes are watched",
}


def _rows(record: Check) -> list[tuple[str, ...]]:
    """The file beside the control."""

    def of(differences: Differences, key: str) -> str:
        return shown(getattr(differences, key))

    rows: list[tuple[str, ...]] = [("", "file", "control: other sums")]
    rows += [(text, of(record.file, key), of(record.control, key)) for key, text in ROWS.items()]
    rows += [(f"first flips of {path}", f"{n:,}", "") for path, n in record.layers.items()]
    return rows
