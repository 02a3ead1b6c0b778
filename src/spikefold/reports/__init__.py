"""Plots and tables from the records of a run. Imports no torch: records are JSON."""

from spikefold.reports._landscape import plot_landscape
from spikefold.reports._many import (
    accuracy_records,
    accuracy_table,
    read_summaries,
    read_summary,
    to_csv,
    to_markdown,
)
from spikefold.reports._page import write_page
from spikefold.reports._pairs import pair_runs, pair_table, pair_verdict, plot_pairs
from spikefold.reports._plots import plot_run
from spikefold.reports._predict import plot_input
from spikefold.reports._runs import find_runs, undamaged, unfinished_runs
from spikefold.reports._settings import Run, require_each_once
from spikefold.reports._tables import Row, cost_table, energy, removed, run_table, run_title

__all__ = [
    "Row",
    "Run",
    "accuracy_records",
    "accuracy_table",
    "cost_table",
    "energy",
    "find_runs",
    "pair_runs",
    "pair_table",
    "pair_verdict",
    "plot_input",
    "plot_landscape",
    "plot_pairs",
    "plot_run",
    "read_summaries",
    "read_summary",
    "removed",
    "require_each_once",
    "run_table",
    "run_title",
    "to_csv",
    "to_markdown",
    "undamaged",
    "unfinished_runs",
    "write_page",
]
