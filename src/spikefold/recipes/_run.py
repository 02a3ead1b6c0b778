"""The whole job: train, fold, fuse, verify, evaluate, time, and record it all."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikefold.costs import cost
from spikefold.data import (
    Dataset,
    Framing,
    Samples,
    is_framed,
    load_dataset,
    require_every_class,
    stratified_split,
)
from spikefold.errors import ConfigError, GraphError, SpikefoldError
from spikefold.folding import Verification, fold, fuse_conv_bn, is_fusable, verify
from spikefold.models import Network
from spikefold.plain import to_plain
from spikefold.records import (
    CONFUSIONS,
    FOLDED,
    FUSED,
    METRICS,
    POTENTIALS,
    RASTER,
    SUMMARY,
    THRESHOLDS,
    VERIFICATION,
    write_json,
)
from spikefold.saving import locked, save
from spikefold.training import (
    Experiment,
    Progress,
    Silent,
    device_of,
    evaluate,
    hardware,
    like_weights,
    potentials,
    raster,
    thresholds,
    time_in_turns,
    train,
)

BATCH = 128
ROUNDS = 80


def run(
    name: str,
    experiment: Experiment,
    directory: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train, fold, fuse, verify on the test set, evaluate and time; write the run's records.

    Besides what `train` writes: `potentials.json`, `raster.json` (spikes for the first test
    sample), `confusions.json` (of the test set), `summary.json`, which is also returned; for a
    network with MPBN `folded.safetensors` and `thresholds.json`, for one with a norm after a
    connection `fused.safetensors`, and for either `verification.json`. A network without MPBN (for
    comparison) has nothing to fold.

    Arguments:
        name: of the recipe, for the record.
        experiment: the configuration.
        directory: where the run's files go.
        resume: go on with an interrupted training.
        progress: told about the work.

    Raises:
        ConfigError: if another process is at work there, or the run cannot go on.
        DataError: if the data are absent, or a class is without samples in a split.
        SpikefoldError: if a loss is not finite.
    """
    with locked(directory):
        return _whole_job(name, experiment, directory, resume, progress or Silent())


def _whole_job(
    name: str, experiment: Experiment, directory: Path, resume: bool, progress: Progress
) -> dict[str, Any]:
    """What `run` does."""
    dataset = load_data(experiment)
    network = train(experiment, dataset, directory, resume=resume, progress=progress, recipe=name)
    device = device_of(experiment.hardware)
    network = network.to(device)
    chosen_on = dataset.validation if len(dataset.validation) else None
    seen = _batch(chosen_on or dataset.train)
    write_json(directory / POTENTIALS, potentials(network, seen))
    write_json(directory / RASTER, _raster(network, dataset))
    confusions: Counter[tuple[int, int]] = Counter()
    trained = _evaluate(network, dataset.test, "test", progress, confusions)
    counts = [[*classes, count] for classes, count in sorted(confusions.items())]
    write_json(directory / CONFUSIONS, {"names": dataset.names, "counts": counts})
    summary = {
        "recipe": name,
        "experiment": to_plain(experiment),
        "hardware": hardware(device),
        "samples": {s: len(dataset.split(s)) for s in ("train", "validation", "test")},
        "notes": dataset.notes,
        "seconds": _training_seconds(directory),
        "validation": chosen_on and _evaluate(network, chosen_on, "validation", progress),
        "test": {"trained": trained},
    }
    summary |= _transform(summary["test"], experiment, dataset, network, directory, progress)
    write_json(directory / SUMMARY, summary)
    return summary


def load_data(experiment: Experiment) -> Dataset:
    """The data set of an experiment, split; event recordings as frames for its steps."""
    data = experiment.data
    root = None if data.root is None else Path(data.root)
    steps = experiment.model.options.steps if is_framed(data.name) else None
    framing = Framing(steps, data.size, data.frames_by, data.sensor)
    dataset = load_dataset(data.name, data.validation, data.split_seed, root, framing)
    if data.train_fraction == 1:
        return dataset
    _, chosen = stratified_split(dataset.train.labels, data.train_fraction, data.split_seed)
    kept = dataset.train.subset(chosen)
    part = f"train_fraction {data.train_fraction:g} of {len(dataset.train):,} training samples"
    require_every_class(kept.labels, dataset.names, part)
    return replace(dataset, train=kept)


def _transform(
    test: dict[str, Any],
    experiment: Experiment,
    dataset: Dataset,
    network: Network,
    directory: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Fold, fuse, verify, count and time; the part of the summary about these."""
    told: dict[str, Any] = {"test": test}
    records: dict[str, Verification] = {}
    folded = network
    if experiment.model.options.norm != "none":
        folded = fold(network)
        save(folded, directory / FOLDED)
        write_json(directory / THRESHOLDS, thresholds(folded))
        records["fold"] = _compare(network, folded, dataset, "verify fold", progress)
        layers = records["fold"].layers.items()
        told["firing_rates"] = {name: layer.firing_rate for name, layer in layers}
        test["folded"] = _evaluate(folded, dataset.test, "test folded", progress)
    shipped = folded
    # a training that ended well shall not fail where nobody can follow its network, or where a norm
    # of the user's does what cannot be fused
    try:
        if is_fusable(folded):
            shipped = fuse_conv_bn(folded)
            save(shipped, directory / FUSED)
    except (SpikefoldError, RuntimeError) as error:
        shipped, told["not_fused"] = folded, " ".join(str(error).split())
    if shipped is not folded:
        records["fuse"] = _compare(folded, shipped, dataset, "verify fusion", progress)
        test["fused"] = _evaluate(shipped, dataset.test, "test fused", progress)
    if records:
        write_json(directory / VERIFICATION, {k: r.to_dict() for k, r in records.items()})
    told |= {name: _overview(record) for name, record in records.items()}
    told["cost"] = _cost(shipped, network, dataset.test, progress)
    if folded is not network:
        told["timing"] = _time(experiment, dataset, network, folded, progress)
    return told


def _cost(
    shipped: Network, trained: Network, samples: Samples, progress: Progress
) -> dict[str, Any]:
    """What a network costs as it ships, over a batch; or why that is not known."""
    batches = samples.spread(BATCH).batches(BATCH)
    try:
        with progress.task("cost", 1) as advance:
            given = ((like_weights(shipped, x), labels) for x, labels in batches)
            return cost(shipped, given, before=trained, on_batch=advance).to_dict()
    except (GraphError, ConfigError) as error:
        return {"not_counted": str(error)}


def _compare(
    one: Network, other: Network, dataset: Dataset, name: str, progress: Progress
) -> Verification:
    """`verify` over the whole test set."""
    with progress.task(name, _batches(dataset.test)) as advance:
        batches = ((like_weights(one, x), labels) for x, labels in dataset.test.batches(BATCH))
        return verify(one, other, batches, on_batch=advance)


def _evaluate(
    network: Network,
    samples: Samples,
    name: str,
    progress: Progress,
    confusions: Counter[tuple[int, int]] | None = None,
) -> dict[str, Any]:
    with progress.task(name, _batches(samples)) as advance:
        return evaluate(network, samples, BATCH, advance, confusions)


def _raster(network: Network, dataset: Dataset) -> dict[str, Any]:
    """The spikes for the first test sample, and of which class it is."""
    record = raster(network, dataset.test.read(torch.tensor([0])))
    label = int(dataset.test.labels[0])
    return {"split": "test", "index": 0, "label": label, "names": dataset.names, **record}


def _batches(samples: Samples) -> int:
    return math.ceil(len(samples) / BATCH)


def _time(
    experiment: Experiment,
    dataset: Dataset,
    network: Network,
    folded: Network,
    progress: Progress,
) -> dict[str, Any]:
    """The three networks in turns; the one without MPBN has the trained weights besides."""
    plain = experiment.build(dataset, norm="none").eval().to(next(network.parameters()))
    plain.load_state_dict(
        {key: value for key, value in network.state_dict().items() if ".lif.norm." not in key}
    )
    networks = {"without MPBN": plain, "folded": folded, "MPBN": network}
    with progress.task("time", ROUNDS) as advance:
        return time_in_turns(networks, _batch(dataset.test), rounds=ROUNDS, on_round=advance)


def _training_seconds(directory: Path) -> float:
    lines = (directory / METRICS).read_text().splitlines()
    return round(sum(json.loads(line)["seconds"] for line in lines), 1)


def _batch(samples: Samples) -> Tensor:
    """The first samples, for a look at the network."""
    return samples.read(torch.arange(min(BATCH, len(samples))))


def _overview(record: Verification) -> dict[str, Any]:
    """The record without its layers."""
    return {key: value for key, value in record.to_dict().items() if key != "layers"}
