"""One page of runs: it needs no network, no script and no other file."""

import shlex
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from spikefold.errors import DataError
from spikefold.records import BEST, CONFUSIONS, LANDSCAPE, RASTER, SUMMARY, VERIFICATION, sha256
from spikefold.replacing import replacing
from spikefold.reports import _figures as figures
from spikefold.reports import _settings as settings
from spikefold.reports._landscape import landscape_figure
from spikefold.reports._runs import undamaged
from spikefold.reports._settings import Run, Setting
from spikefold.reports._svg import inline_svg
from spikefold.reports._tables import COUNTED, cost_table, energy, mean_of, removed, run_title

NOTHING_FOLDED = "nothing was folded: these networks have no norm of the membrane"
# what is compared after a transform, and what it is called
VERDICTS = {
    "fold": ("The network with MPBN and the folded one", "the fold"),
    "fuse": ("The network before and after fusing its norms, which changes rounding", "fusing"),
}
# classes of a matrix; of more, the most frequent confusions are listed
MATRIX, LISTED = 24, 20


class Picture(NamedTuple):
    """A drawn figure and the words below it."""

    svg: Markup
    caption: str


def write_page(runs: Sequence[Run], path: Path, on_run: Callable[[], None] = lambda: None) -> None:
    """Write a page about runs: tables, pictures, verification, cost and settings.

    Arguments:
        runs: of one data set; those that differ in their seed only are taken together.
        path: HTML file.
        on_run: called for each run when all of its setting are drawn, for progress.

    Raises:
        DataError: if the runs are of different data sets, or a record is damaged: says which.
        FileFormatError: if the file cannot be written.
    """
    groups = settings.group(runs)
    with figures.drawing():
        page = _render(groups, on_run)
    with replacing(path) as temporary:
        # names of folders need not be UTF-8
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _render(groups: list[Setting], on_run: Callable[[], None]) -> str:
    environment = Environment(
        loader=PackageLoader("spikefold.reports", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    style = (files("spikefold.reports") / "page" / "page.css").read_text()
    differing = settings.differing(groups)
    return environment.get_template("page.html").render(
        version=version("spikefold"),
        style=Markup(style),
        title=settings.title(groups),
        about=settings.about(groups),
        summary=settings.summary_table(groups),
        notes=settings.notes(groups),
        differences=differing,
        curves=_curves(groups),
        rates=_rates(groups),
        settings=_sections(groups, on_run),
        everything=settings.everything(groups),
        marked=differing[0] if differing else (),
        hardware=settings.hardware(groups),
        hardware_differences=settings.differing_hardware(groups),
    )


def _sections(groups: list[Setting], on_run: Callable[[], None]) -> list[dict[str, Any]]:
    sections = []
    for number, group in enumerate(groups, 1):
        sections.append(_setting(group, f"setting-{number}"))
        for _ in group.runs:
            on_run()
    return sections


def _setting(group: Setting, anchor: str) -> dict[str, Any]:
    """What the page's section about a setting shows: None for what was not recorded."""
    run = group.runs[0]

    def drawn(
        name: str, draw: Callable[[Any], Figure], tell: Callable[[Any], str], caption: str
    ) -> Picture | None:
        record = run.read(f"{name}.json")
        if record is None:
            return None
        with undamaged(run.directory / f"{name}.json"):
            alt = f"{caption}. {tell(record)}"
            return Picture(inline_svg(draw(record), alt, f"{anchor}-{name}-"), caption)

    sample, stale = run.read(RASTER), _is_of_other_weights(run)
    return {
        "anchor": anchor,
        "label": group.label,
        "what": run_title(run.summary),
        "folders": [str(run.directory) for run in group.runs],
        "shown": f"{group.label}, seed {run.seed}",
        "unfolded": "not recorded" if "fold" in run.summary else NOTHING_FOLDED,
        "potentials": drawn(
            "potentials",
            figures.potential_figure,
            _potentials_told,
            "Distribution of the membrane potential in each layer",
        ),
        "thresholds": drawn(
            "thresholds", figures.threshold_figure, _thresholds_told, "Folded thresholds by layer"
        ),
        "raster": drawn("raster", figures.raster_figure, _raster_told, _sample_told(run, sample)),
        "landscape": None
        if stale
        else drawn(
            "landscape",
            landscape_figure,
            _landscape_told,
            "Loss along filter-normalized random directions (Li et al. 2018)",
        ),
        "landscape_missing": f"{'of other weights' if stale else 'not recorded'}: spikefold "
        f"landscape {shlex.quote(str(run.directory))} -o "
        f"{shlex.quote(str(run.directory / LANDSCAPE))}{' --overwrite' if stale else ''}",
        "confusions": _confusions(group),
        "verification": _verification(group),
        "cost": _cost(run),
    }


def _is_of_other_weights(run: Run) -> bool:
    """Whether a landscape lies there that was measured before the run's network was trained on."""
    record, trained = run.read(LANDSCAPE), run.directory / BEST
    if record is None or not trained.exists():
        return False
    with undamaged(run.directory / LANDSCAPE):
        # older records do not say
        hashes = [network["sha256"] for network in record["networks"] if "sha256" in network]
    return bool(hashes) and sha256(trained) not in hashes


def _potentials_told(record: dict[str, Any]) -> str:
    def spread(part: dict[str, Any]) -> str:
        return f"{part['mean']:.2f} ± {part['deviation']:.2f}"

    return "; ".join(
        f"{figures.short(name)}: {spread(layer['before'])} before"
        + (f", {spread(layer['after'])} after" if "after" in layer else "")
        + (f", currents {spread(layer['currents'])}" if "currents" in layer else "")
        for name, layer in record.items()
    )


def _thresholds_told(record: dict[str, Any]) -> str:
    def span(layer: dict[str, Any]) -> str:
        theta = sorted(map(float, layer["theta"]))
        return f"{theta[0]:.2f} to {theta[-1]:.2f}, {layer['threshold']:g} before the fold"

    return "; ".join(f"{figures.short(name)}: {span(layer)}" for name, layer in record.items())


def _raster_told(record: dict[str, Any]) -> str:
    def count(layer: dict[str, Any]) -> str:
        spikes, shown = sum(map(len, layer["fired"])), len(layer["neurons"])
        return f"{spikes} spikes of {shown} neurons in {len(layer['fired'])} steps"

    return "; ".join(
        f"{figures.short(name)}: {count(layer)}" for name, layer in record["layers"].items()
    )


def _landscape_told(record: dict[str, Any]) -> str:
    def span(network: dict[str, Any]) -> str:
        losses = np.array(network["loss"], dtype=float)
        return (
            f"loss of {network['network']} from {np.nanmin(losses):.3g} to {np.nanmax(losses):.3g}"
        )

    return "; ".join(map(span, record["networks"]))


def _sample_told(run: Run, record: dict[str, Any] | None) -> str:
    """Which sample a raster is of."""
    if record is None:
        return ""
    with undamaged(run.directory / RASTER):
        names = record["names"]
        label, predicted = (_class_name(names, record[key]) for key in ("label", "predicted"))
        return (
            f"{record['split']} sample {record['index']}, of class {label}, taken for {predicted}"
        )


def _class_name(names: list[str], label: Any) -> str:
    """Of a label, which is a whole number.

    Raises:
        ValueError, LookupError: if it is none of a class.
    """
    if type(label) is not int or label < 0:
        raise ValueError(f"{label!r} is no class")
    return names[label]


def _curves(groups: list[Setting]) -> Picture:
    """Learning curves of all settings and seeds."""
    histories = {group.label: [run.history for run in group.runs] for group in groups}
    told = []
    for group in groups:
        wrong = [
            100 * (1 - run.history[-1]["validation_accuracy"])
            for run in group.runs
            if "validation_accuracy" in run.history[-1]
        ]
        if wrong:
            mean = sum(wrong) / len(wrong)
            told.append(f"{group.label}: {mean:.2f} % of the validation samples wrong at the end")
    caption = "Training loss and validation error by epoch, a line a run and a mean a setting"
    alt = f"{caption}. {'; '.join(told)}"
    return Picture(inline_svg(figures.curve_figure(histories), alt, "curves-"), caption)


def _rates(groups: list[Setting]) -> Picture | None:
    """Firing rates of all settings, if they were recorded."""
    rates = {group.label: settings.rates_of_layers(group) for group in groups}
    rates = {label: layers for label, layers in rates.items() if layers}
    if not rates:
        return None
    told = "; ".join(
        f"{label}: "
        + ", ".join(f"{figures.short(n)} {sum(of) / len(of):.3f}" for n, of in layers.items())
        for label, layers in rates.items()
    )
    caption = "Spikes per neuron and time step in each layer, a mark a run"
    return Picture(inline_svg(figures.rate_figure(rates), f"{caption}. {told}", "rates-"), caption)


def _confusions(group: Setting) -> dict[str, Any] | None:
    """Test samples by class and predicted class, over the seeds that recorded them."""
    read = [(run, run.read(CONFUSIONS)) for run in group.runs]
    found = [(run, record) for run, record in read if record is not None]
    if not found:
        return None
    counts: dict[tuple[int, int], int] = {}
    names: list[str] = []
    for run, record in found:
        with undamaged(run.directory / CONFUSIONS):
            if found[0][0] is not run and _class_names(record) != names:
                raise DataError(
                    f"{run.directory / CONFUSIONS}: other classes than in {found[0][0].directory}: "
                    "a page is about runs on one data set"
                )
            names = _class_names(record)
            for label, predicted, count in record["counts"]:
                _ = _class_name(names, label), _class_name(names, predicted)
                if type(count) is not int or count < 0:
                    raise ValueError("a count is no whole number")
                counts[label, predicted] = counts.get((label, predicted), 0) + count
    many = f"all {len(found)} seeds together" if len(found) > 1 else f"seed {found[0][0].seed}"
    if len(names) > MATRIX:
        wrong = sorted(
            ((count, pair) for pair, count in counts.items() if pair[0] != pair[1]), reverse=True
        )
        rows = [(names[a], names[b], f"{count:,}") for count, (a, b) in wrong[:LISTED]]
        most = [("class", "taken for", "samples"), *rows]
        return {"names": names, "caption": f"Test set, {many}", "matrix": None, "most": most}
    matrix = []
    for label in range(len(names)):
        row = [counts.get((label, predicted), 0) for predicted in range(len(names))]
        matrix.append([(count, count / max(1, sum(row))) for count in row])
    return {"names": names, "caption": f"Test set, {many}", "matrix": matrix}


def _class_names(record: dict[str, Any]) -> list[str]:
    """Of confusions.

    Raises:
        TypeError: if they are none.
    """
    names = record["names"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise TypeError("names of classes are a list of texts")
    return names


def _verification(group: Setting) -> dict[str, Any] | None:
    """What was compared: over all seeds, and by layer of the first run."""
    run = group.runs[0]
    record = run.read(VERIFICATION)
    if record is None:
        return None
    with undamaged(run.directory / VERIFICATION):
        found = {name: record[name]["layers"] for name in VERDICTS if name in record}
        if not found:
            raise LookupError("neither fold nor fuse")
        for name, layers in found.items():
            counted = sum(layer["mismatches"] for layer in layers.values())
            told = run.summary.get(name, {}).get("mismatches", counted)
            if counted != told:
                raise ValueError(f"{counted} decisions differ after {name}, {SUMMARY} says {told}")
        rows = [("layer", "compared", *(f"differ after {VERDICTS[name][1]}" for name in found))]
        for layer, compared in next(iter(found.values())).items():
            differ = (of[layer]["mismatches"] for of in found.values())
            counts = (compared["compared"], *differ)
            rows.append((layer, *(f"{count:,}" for count in counts)))
    told = [name for name in found if any(name in run.summary for run in group.runs)]
    return {"verdicts": [_verdict(group, name) for name in told], "layers": rows}


def _verdict(group: Setting, name: str) -> str:
    records = [run.summary[name] for run in group.runs if name in run.summary]
    differ, compared = (sum(record[key] for record in records) for key in ("mismatches", "spikes"))
    runs = f"{len(records)} run{'s' if len(records) > 1 else ''}"
    return (
        f"{VERDICTS[name][0]}, over the test set, {runs}: {differ:,} of {compared:,} spike "
        "decisions differ."
    )


def _cost(run: Run) -> dict[str, Any] | None:
    """Operations and energy of the first run's network."""
    record = run.summary.get("cost")
    if record is None:
        return None
    if "not_counted" in record:
        return {"sentence": record["not_counted"], "layers": None}
    with undamaged(run.directory / SUMMARY):
        gone = removed(record)
        sentence = f"{COUNTED.capitalize()}{mean_of(record)}: {energy(record)}."
        sentence += f" Fold and fusion removed: {gone}." if gone else ""
        return {"sentence": sentence, "layers": cost_table(record)}
