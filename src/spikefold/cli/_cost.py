"""The command that tells what a network costs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from spikefold.cli._inputs import load_data_for, load_network, network_file
from spikefold.cli._networks import NOTHING_ASKED, On
from spikefold.cli._output import print_json, print_rows
from spikefold.cli._parsing import Json, parse
from spikefold.cli._progress import shown_progress
from spikefold.costs import cost
from spikefold.data import SplitName
from spikefold.ranges import require_within
from spikefold.reports import cost_table, energy, removed
from spikefold.training import like_weights


@dataclass(frozen=True)
class CostOptions:
    """Operations of a network, counted on real data; memory, and energy beside an artificial
    network of the same shape.
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="NETWORK")]
    """network file, folded or not; or a run's folder, of which the folded network is taken, or the
    trained one where none was folded"""
    on: On = NOTHING_ASKED
    split: SplitName = "test"
    """which of its samples"""
    samples: int = 500
    """how many of them, evenly spaced; all if there are fewer"""
    json: Json = False

    def __post_init__(self) -> None:
        require_within("cost", self, samples="[1, 1e12]")


def cost_command(words: list[str]) -> None:
    """Count a network's operations."""
    options = parse(CostOptions, words, "spikefold cost")
    network = load_network(options.file, options.on.device)
    dataset = load_data_for(network, options.file, options.on, options.split)
    samples, size = dataset.split(options.split).spread(options.samples), options.on.batch_size
    batches = ((like_weights(network, x), labels) for x, labels in samples.batches(size))
    with shown_progress().task("cost", math.ceil(len(samples) / size)) as advance:
        record = cost(network, batches, on_batch=advance)
    told = record.to_dict()
    if options.json:
        file = str(network_file(options.file))
        print_json({"file": file, "data": dataset.name, "split": options.split, **told})
        return
    print_rows(
        f"{network_file(options.file)}: a sample of {dataset.name} ({options.split}, mean of "
        f"{record.samples:,}) in {record.steps:g} time steps",
        cost_table(told),
    )
    print(energy(told))
    if gone := removed(told):
        print(f"fold and fusion removed: {gone}")
    if record.norm_operations:
        print(
            f"norms left: {record.norm_operations:,.0f} operations in all (beside each norm: those "
            "of a neuron and step)"
        )
