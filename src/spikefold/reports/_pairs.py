"""Two settings, paired by seed: what one gains over the other, and how sure that is."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spikefold.errors import ConfigError, DataError
from spikefold.records import METRICS
from spikefold.reports._figures import curve_figure, drawing
from spikefold.reports._many import OWN_DATA, data_root, flattened, read_summaries
from spikefold.reports._plots import write_png
from spikefold.reports._runs import read_history

SPLITS = ("validation", "test")


Summaries = list[dict[str, Any]]


def pair_runs(
    one: Path, other: Path, complete: Callable[[Summaries], Summaries] = lambda summaries: summaries
) -> dict[str, Any]:
    """How accuracies of the other setting differ from those of the one, run by run of a seed.

    The interval is Student's of the mean difference. The p-value is exact: of all 2^n ways to
    choose the signs of the differences, the share whose mean is at least as far from 0.

    Arguments:
        one, other: directories of runs of one setting each.
        complete: gives summaries of several versions the same settings.

    Returns:
        `seeds`; `differ`, the settings that are not the same, and `names` of the two, made of them;
        for "validation" and "test" the
        accuracies of `one` and `other`, their `differences`, the `mean` of these, its 95 %
        `interval` (None of one pair) and `p`.

    Raises:
        DataError: if there are no runs, a seed stands twice on a side, no seed on both, or the runs
            are of different data.
        ConfigError: if scipy is not installed.
    """
    found = [read_summaries([path]) for path in (one, other)]
    whole = complete([*found[0], *found[1]])
    count = len(found[0])
    runs = [_by_seed(one, whole[:count]), _by_seed(other, whole[count:])]
    seeds = sorted(runs[0].keys() & runs[1].keys())
    if not seeds:
        raise DataError(f"{one} and {other} have no seed in common: nothing to pair")
    pairs = [(runs[0][seed], runs[1][seed]) for seed in seeds]
    for first, second in pairs:
        others = _differing_data(first, second)
        if others:
            raise DataError(
                f"{one} and {other} are runs on different data ({', '.join(others)}): not paired"
            )
    differ = sorted({key for pair in pairs for key in _differing(*pair)})
    record: dict[str, Any] = {
        "one": str(one),
        "other": str(other),
        "names": [_name(run, differ) for run in pairs[0]],
        "seeds": seeds,
        "differ": differ,
    }
    for split in SPLITS:
        if all(_accuracy(run, split) is not None for pair in pairs for run in pair):
            values = np.array([[_accuracy(run, split) for run in pair] for pair in pairs])
            record[split] = _compared(values[:, 0], values[:, 1])
    return record


def _by_seed(path: Path, summaries: Summaries) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for summary in summaries:
        seed = summary["experiment"]["seed"]
        if seed in found:
            raise DataError(f"{path}: two runs of seed {seed}: give the directory of one setting")
        found[seed] = summary
    return found


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Settings that the two have and that are not the same, but for where runs and data lay."""
    first, second = (flattened(run["experiment"]) for run in (one, other))
    shared = first.keys() & second.keys() - {"data.root"}
    keys = (key for key in shared if not key.startswith("hardware."))
    return [key for key in keys if first[key] != second[key]]


def _differing_data(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What makes their samples others; training samples may be changed at random as one likes."""
    read = [run["experiment"]["data"] for run in (one, other)]
    first, second = ({**data, "root": data_root(data)} for data in read)
    same = {"augmentation"} if first["name"] in OWN_DATA else {"augmentation", "root"}
    keys = first.keys() & second.keys() - same
    return [f"data.{key}" for key in sorted(keys) if first[key] != second[key]]


def _name(summary: dict[str, Any], differ: Sequence[str]) -> str:
    """A setting by what it has in place of the other's."""
    flat = flattened(summary["experiment"])
    return ", ".join(f"{key.rpartition('.')[2]} {flat[key]}" for key in differ) or "the same"


def _accuracy(summary: dict[str, Any], split: str) -> float | None:
    record = summary[split] if split == "validation" else summary["test"]["trained"]
    return None if record is None else record["accuracy"]


def _compared(one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
    try:
        from scipy import stats
    except ImportError as error:
        raise ConfigError("comparing needs scipy: pip install 'spikefold[statistics]'") from error
    differences = other - one
    record = {
        "one": one.tolist(),
        "other": other.tolist(),
        "differences": differences.tolist(),
        "mean": float(differences.mean()),
        "interval": None,
        "p": 1.0,
    }
    if len(differences) > 1:
        count = len(differences)
        reach = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
        signs = stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        record |= {
            "interval": [float(differences.mean() - reach), float(differences.mean() + reach)],
            "p": float(signs.pvalue),
        }
    return record


def pair_table(record: dict[str, Any]) -> list[tuple[str, ...]]:
    """A header, a row a seed and one of the mean, in percent.

    Arguments:
        record: of `pair_runs`.
    """
    splits = [split for split in SPLITS if split in record]
    columns = [f"{split}, {side}" for split in splits for side in ("one", "other", "difference")]
    rows: list[tuple[str, ...]] = [("seed", *columns)]
    for place, seed in enumerate(record["seeds"]):
        cells = []
        for split in splits:
            parts = record[split]
            cells += [f"{100 * parts[side][place]:.2f}" for side in ("one", "other")]
            cells.append(f"{100 * parts['differences'][place]:+.2f}")
        rows.append((str(seed), *cells))
    mean = []
    for split in splits:
        parts = record[split]
        mean += [f"{100 * np.mean(parts[side]):.2f}" for side in ("one", "other")]
        mean.append(f"{100 * parts['mean']:+.2f}")
    return [*rows, ("mean", *mean)]


def pair_verdict(record: dict[str, Any], split: str) -> str:
    """The mean difference of a split in one line.

    Arguments:
        record: of `pair_runs`.
        split: "validation" or "test".
    """
    parts, pairs = record[split], len(record["seeds"])
    many = f"{pairs} pair{'s' * (pairs > 1)}"
    line = f"{split}: the other less the one {100 * parts['mean']:+.2f} points over {many}"
    if parts["interval"] is None:
        return f"{line}: of one pair nothing can be said"
    low, high = (100 * value for value in parts["interval"])
    return (
        f"{line}, 95 % interval {low:+.2f} to {high:+.2f}, exact p = {parts['p']:.3g} "
        f"(at least {2 / 2**pairs:.3g} with so many)"
    )


def plot_pairs(one: Path, other: Path, names: Sequence[str], path: Path) -> None:
    """Learning curves of all seeds of two settings: training loss, validation error.

    Arguments:
        one, other: directories of runs of one setting each.
        names: of the two, for the legend.
        path: PNG file.
    """
    histories = {
        name: [read_history(file.parent) for file in sorted(folder.glob(f"**/{METRICS}"))]
        for name, folder in zip(names, (one, other), strict=True)
    }
    with drawing():
        write_png(curve_figure(histories), path)
