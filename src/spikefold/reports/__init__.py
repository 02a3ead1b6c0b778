"""Plots and tables from the records of a run. Imports no torch: records are JSON."""

from spikefold.reports._plots import plot_run
from spikefold.reports._predict import plot_input
from spikefold.reports._tables import (
    Row,
    accuracy_table,
    read_summaries,
    run_table,
    to_csv,
    to_markdown,
)

__all__ = [
    "Row",
    "accuracy_table",
    "plot_input",
    "plot_run",
    "read_summaries",
    "run_table",
    "to_csv",
    "to_markdown",
]
