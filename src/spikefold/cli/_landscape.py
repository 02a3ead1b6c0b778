"""The command that looks at the loss around trained networks."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from spikefold.cli._inputs import TRAINED, load_data_for, load_network, network_file
from spikefold.cli._networks import NOTHING_ASKED, On
from spikefold.cli._output import print_error, print_json, print_rows
from spikefold.cli._outputs import require_free, require_writable
from spikefold.cli._parsing import NEEDED, Json, parse
from spikefold.cli._progress import shown_progress
from spikefold.data import Dataset, Samples, SplitName
from spikefold.errors import ConfigError
from spikefold.models import Network
from spikefold.ranges import require_within
from spikefold.records import sha256, write_json
from spikefold.reports import plot_landscape
from spikefold.training import Landscape, LandscapeConfig, landscape

PIECE = 64  # samples that are compared at a time
AROUND = LandscapeConfig()
COLUMNS = (
    "sharpness: how far the loss rises within reach, of 1 + loss; curvature: second "
    "difference at the network, by direction;\nslope: the steepest step between points; moved: "
    "parameters that the directions move"
)


@dataclass(frozen=True)
class LandscapeOptions:
    """Loss of trained networks along one or two filter-normalized random directions (Li et al.,
    NeurIPS 2018), the same ones for networks with and without MPBN.
    """

    files: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK ..."), NEEDED
    ]
    """network files, or runs' folders, of which the trained networks are taken"""
    on: On = NOTHING_ASKED
    config: Annotated[LandscapeConfig, tyro.conf.arg(name="")] = AROUND
    split: SplitName = "train"
    """which of the samples; the optimizer saw those of training"""
    samples: int = 500
    """how many of them, evenly spaced; all if there are fewer"""
    picture: Path | None = None
    """PNG or SVG file: curves in one panel, or contours side by side"""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """JSON file for the record"""
    overwrite: bool = False
    """replace the record if it is there"""
    json: Json = False

    def __post_init__(self) -> None:
        require_within("landscape", self, samples="[1, 1e12]")


def landscape_command(words: list[str]) -> None:
    """Look at the loss around networks."""
    options = parse(LandscapeOptions, words, "spikefold landscape")
    if not options.files:
        raise ConfigError("landscape: name at least one network")
    if options.out is not None:
        require_free(options.out, options.overwrite, ".json")
    if options.picture is not None:
        require_writable(options.picture, ".png", ".svg")
    files = [network_file(file, TRAINED) for file in options.files]
    if len({file.resolve() for file in files}) < len(files):
        raise ConfigError("landscape: a network is named twice")
    networks = [load_network(file, options.on.device) for file in files]
    dataset, samples = _data(options, networks)
    records = _landscapes(options, networks, samples)
    told = {
        "data": dataset.name,
        "split": options.split,
        "networks": [
            {"network": str(name), "file": str(file), "sha256": sha256(file), **record.to_dict()}
            for name, file, record in zip(options.files, files, records, strict=True)
        ],
    }
    if options.out is not None:
        write_json(options.out, told)
    if options.picture is not None:
        plot_landscape(told, options.picture)
    _note_not_finite(options, records)
    if options.json:
        print_json(told)
    else:
        print_rows(_title(options, dataset, records[0]), _rows(options, records))
        print(COLUMNS)


def _data(options: LandscapeOptions, networks: list[Network]) -> tuple[Dataset, Samples]:
    """The data set and its samples, the same for all networks."""
    found = [
        load_data_for(network, file, options.on, options.split)
        for network, file in zip(networks, options.files, strict=True)
    ]
    chosen = [dataset.split(options.split).spread(options.samples) for dataset in found]
    first = _input(found[0], chosen[0])
    for file, dataset, samples in zip(options.files, found, chosen, strict=True):
        if _input(dataset, samples) != first or not _alike(samples, chosen[0]):
            raise ConfigError(
                f"{file}: its input is not that of {options.files[0]}: only losses on the same "
                f"samples can be compared ({_told(dataset, samples)}; there "
                f"{_told(found[0], chosen[0])})"
            )
    return found[0], chosen[0]


def _alike(one: Samples, other: Samples) -> bool:
    """Whether they hold the same numbers: folders of one's own may be alike in all else."""
    pairs = zip(one.batches(PIECE), other.batches(PIECE), strict=True)
    return one is other or all(torch.equal(x, y) for (x, _), (y, _) in pairs)


def _input(dataset: Dataset, samples: Samples) -> tuple[Any, ...]:
    """What networks have in common that see the same samples."""
    return dataset.name, dataset.framing, samples.shape, samples.labels.tolist()


def _told(dataset: Dataset, samples: Samples) -> str:
    return f"{len(samples)} of {dataset.name}, {list(samples.shape)} each"


def _landscapes(
    options: LandscapeOptions, networks: list[Network], samples: Samples
) -> list[Landscape]:
    size, config = options.on.batch_size, options.config
    batches = len(samples) // size if config.batch_statistics else math.ceil(len(samples) / size)
    total = len(networks) * batches * config.total
    with shown_progress().task("landscape", total) as advance:
        return [landscape(network, samples, config, size, advance) for network in networks]


def _note_not_finite(options: LandscapeOptions, records: list[Landscape]) -> None:
    for file, record in zip(options.files, records, strict=True):
        missing = int((~record.loss.isfinite()).sum())
        if missing:
            print_error(
                f"note: {file}: {missing} of {record.loss.numel()} losses are not finite: null in "
                "the record, at the edge of the picture or hatched"
            )


def _title(options: LandscapeOptions, dataset: Dataset, record: Landscape) -> str:
    config = options.config
    points = f"{config.points}{f' x {config.points}' if config.two else ''}"
    by = "each batch's" if config.batch_statistics else "trained"
    return (
        f"{dataset.name} ({options.split}, {record.samples:,} samples): {points} points up to "
        f"{config.reach:g}, seed {config.seed}, {by} statistics"
    )


def _rows(options: LandscapeOptions, records: list[Landscape]) -> list[tuple[str, ...]]:
    head = ("network", "loss", "accuracy", "sharpness", "curvature", "slope", "moved")
    rows = []
    for file, record in zip(options.files, records, strict=True):
        loss, accuracy = record.centre
        figures = (
            f"{loss:.4g}",
            f"{accuracy:.2%}",
            f"{record.sharpness:.4g} %",
            ", ".join(f"{curvature:.4g}" for curvature in record.curvature),
            f"{record.slope:.4g}",
            f"{record.moved:,} of {record.parameters:,}",
        )
        rows.append((str(file), *figures))
    return [head, *rows]
