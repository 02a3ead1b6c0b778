"""The command line: the only place that parses arguments, prints and chooses exit statuses."""

from spikefold.cli._main import main

__all__ = ["main"]
