"""Plots and tables from the records of a run. Imports no torch: records are JSON."""

from spikefold.reports._plots import plot_run
from spikefold.reports._tables import Row, run_table

__all__ = ["Row", "plot_run", "run_table"]
