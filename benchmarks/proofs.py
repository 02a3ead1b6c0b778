"""Networks exported to every target and checked there: `python -m benchmarks.proofs RUN...`.

A run is a folder that `spikefold run` left. Targets that are not installed are left out.
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import tyro
from torch import Tensor, nn
from tqdm import tqdm

import spikefold as sf
from benchmarks import record
from benchmarks.report import table
from spikefold.data import Samples
from spikefold.export import Layout, NIRTarget, Runtime, file_hash, openvino_with
from spikefold.recipes import load_data
from spikefold.records import CONFIG, FOLDED
from spikefold.training import Experiment

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
IMPORTERS: dict[NIRTarget, str] = {
    "spikingjelly": "SpikingJelly",
    "snntorch": "snnTorch",
    "norse": "Norse",
}
PROGRAMS = ("onnx", "onnxruntime", "openvino", "nir")
HEAD = (
    "network", "target", "samples", "decisions", "differ", "in samples", "first flips",
    "largest, share of the bound", "classes that differ",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """What exported networks are checked.

    Arguments:
        runs: folders of runs with a folded network.
        samples: test samples for each target.
        most: for onnxruntime; 500 where there are so many.
        batch_size: samples at a time.
        out: folder of `proofs.json` and `proofs.md`.
    """

    runs: Annotated[list[Path], tyro.conf.Positional]
    samples: int = 100
    most: int = 500
    batch_size: int = 50
    out: Path = Path("runs/benchmarks")


@dataclass(frozen=True)
class Target:
    """A kind of file and what runs it.

    Attributes:
        name: in the table.
        export: writes a network's file.
        runtime: as `sf.check` takes it.
        most: whether it is checked on the most samples.
    """

    name: str
    export: Callable[[nn.Module, Path], None]
    runtime: str | Runtime | None = None
    most: bool = False


def targets() -> Iterator[Target]:
    """Those whose programs are installed."""
    if find_spec("onnxruntime"):
        for fuse, layout in product((False, True), LAYOUTS):
            name = f"onnxruntime: {layout}{', fused' if fuse else ''}"
            export = partial(sf.to_onnx, layout=layout, fuse=fuse)
            yield Target(name, export, "onnxruntime", most=True)
    if find_spec("openvino"):
        yield Target("OpenVINO", sf.to_onnx, "openvino")
        yield Target("OpenVINO, fused", partial(sf.to_onnx, fuse=True), "openvino")
        bfloat16 = openvino_with(INFERENCE_PRECISION_HINT="bf16")
        yield Target("OpenVINO in bfloat16, as it would by itself", sf.to_onnx, bfloat16)
    yield Target("onnx's reference", sf.to_onnx, "reference")
    yield Target("torch program", sf.to_torch)
    for package, name in IMPORTERS.items():
        if find_spec(package):
            yield Target(f"{name}, by NIR", partial(sf.to_nir, target=package))


def batches(samples: Samples, count: int, size: int) -> list[Tensor]:
    """The first samples, as networks take them."""
    places = torch.arange(min(count, len(samples)))
    return [samples.read(chosen) for chosen in places.split(size)]


def proved(target: Target, network: nn.Module, given: list[Tensor]) -> dict[str, Any]:
    """What `sf.check` says of a target, or why there is nothing to check."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network"
        try:
            target.export(network, path)
            found = sf.check(network, path, given, runtime=target.runtime)
        except sf.SpikefoldError as error:
            return {"refused": str(error).replace(f"{folder}/", "").removeprefix("export: ")}
    return found.to_dict()


def measure(options: Options) -> list[dict[str, Any]]:
    """An entry for each network and target."""
    entries = []
    for run in options.runs:
        experiment, network = Experiment.load(run / CONFIG), sf.load(run / FOLDED)
        about = {"network": name_of(experiment), "sha256": file_hash(run / FOLDED)}
        test = load_data(experiment).test
        most, few = (
            batches(test, count, options.batch_size) for count in (options.most, options.samples)
        )
        for target in tqdm([*targets()], desc=str(run), file=sys.stderr):
            found = proved(target, network, most if target.most else few)
            entries.append({**about, "target": target.name, **found})
    return entries


def name_of(experiment: Experiment) -> str:
    """Data set, model and epochs."""
    trained = f"{experiment.optimizer.epochs} epochs"
    return f"{experiment.data.name}, {experiment.model.name}, {trained}"


def cells(samples: int, found: dict[str, Any]) -> tuple[str, ...]:
    """The numbers of a row."""
    counts = [samples, found["decisions"], found["differ"], found["samples"], found["first"]]
    share = f"{found['largest']:.2g}" if found["first"] else ""
    if found["beyond"]:
        share += f" ({found['beyond']:,} beyond it: fails)"
    return (*(f"{count:,}" for count in counts), share, f"{found['classes']:,}")


def rows(entries: list[dict[str, Any]]) -> Iterator[list[str]]:
    """Targets of the same network with the same numbers are one row; the control ends each."""
    grouped: dict[tuple[str, ...], list[str]] = defaultdict(list)
    controls: dict[str, tuple[str, ...]] = {}
    for entry in entries:
        network = entry["network"]
        if "refused" in entry:
            grouped[network, "", "", "", "", "", entry["refused"], ""].append(entry["target"])
            continue
        grouped[network, *cells(entry["samples"], entry["file"])].append(entry["target"])
        controls.setdefault(network, cells(entry["samples"], entry["control"]))
    for key, names in grouped.items():
        yield [key[0], "; ".join(names), *key[1:]]
    for network, numbers in controls.items():
        yield [network, "control: the network in channels last", *numbers]


def environment() -> dict[str, Any]:
    """Hardware and versions, of what runs the files as well."""
    here = record.environment("cpu")
    here["versions"] |= {name: version(name) for name in PROGRAMS if find_spec(name)}
    return here


def main() -> None:
    """Measure and report."""
    options = tyro.cli(Options, description=__doc__)
    try:
        entries = measure(options)
    except sf.SpikefoldError as error:
        sys.exit(str(error))
    path = options.out / "proofs.json"
    record.save(path, {"environment": environment(), "proofs": entries})
    text = table(list(HEAD), sorted(rows(entries), key=lambda row: row[0]))
    record.write(path.with_suffix(".md"), text + "\n")
    print(text)


if __name__ == "__main__":
    main()
