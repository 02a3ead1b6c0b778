"""From words to commands."""

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from signal import SIGINT, SIGTERM
from textwrap import wrap
from typing import Any

from spikefold.cli._extensions import import_extensions
from spikefold.cli._output import one_line, print_error
from spikefold.cli._signals import Terminated, terminable
from spikefold.errors import ConfigError, SpikefoldError, SpikefoldWarning
from spikefold.names import DATASETS, MODELS
from spikefold.registry import unknown

# Module and summary of each. A module is imported when its command is asked for: torch takes
# seconds, and the list of commands does not need it.
COMMANDS = {
    "run": ("_experiments", "train, fold, fuse, verify, evaluate and report a recipe"),
    "train": ("_experiments", "only train a recipe"),
    "fold": ("_networks", "fold a checkpoint's MPBN into its thresholds"),
    "fuse": ("_networks", "fuse norms after connections into their weights"),
    "verify": ("_networks", "compare two networks spike by spike on real data"),
    "evaluate": ("_networks", "accuracy of a network file"),
    "cost": ("_cost", "operations, memory and energy of a network on real data"),
    "landscape": ("_landscape", "loss around trained networks, along random directions"),
    "export": ("_export", "write a folded network for other software: ONNX, torch, NIR"),
    "check": ("_export", "prove an exported file: it and its network side by side"),
    "import": ("_import", "make a network file of an official checkpoint or a NIR graph"),
    "predict": ("_predict", "class of one event recording or image"),
    "sweep": ("_sweep", "run recipes x settings x seeds; resumes where it stopped"),
    "table": ("_table", "mean and deviation of accuracy over many runs"),
    "report": ("_report", "one page about runs: tables, pictures, proof, cost"),
    "compare": ("_compare", "two settings, seed by seed: difference, interval, exact test"),
    "recalibrate": ("_networks", "estimate a checkpoint's statistics again"),
    "datasets": ("_datasets", "list the data sets, and whether they are there"),
    "recipes": ("_experiments", "list the recipes"),
    "show": ("_experiments", "a recipe with all its settings, as a file: > my.toml"),
}

# as which its short forms count
OUTPUT = "--output"


def find_command(name: str) -> Callable[[list[str]], None]:
    """The function that takes the words after a command's name."""
    module, _ = COMMANDS[name]
    command: Callable[[list[str]], None] = getattr(
        import_module(f"spikefold.cli.{module}"), f"{name}_command"
    )
    return command


def usage() -> str:
    """The first page of help."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: spikefold [--import MODULE] COMMAND ...",
            "",
            "Spiking networks with membrane potential batch normalization, folded exactly.",
            "",
            *lines,
            "",
            *wrap(f"models: {', '.join(MODELS)}", 100),
            *wrap(f"data sets: {', '.join(DATASETS)}", 100),
            "",
            "spikefold COMMAND --help explains a command; all know --json.",
            "--import MODULE, before it, imports what registers models, data sets or recipes.",
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Arguments:
        words: what follows `spikefold`; default: the process's own.

    Returns:
        exit status: 0, or 1 for an error, 2 for wrong usage, 130 when interrupted (Ctrl-C), 143
        when terminated (SIGTERM).
    """
    _print_any_name()
    try:
        with terminable(), warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, otherwise=warnings.showwarning)
            status = _run(list(sys.argv[1:] if words is None else words))
            sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        print_error(str(interrupt) or "interrupted")
        return 128 + (SIGTERM if isinstance(interrupt, Terminated) else SIGINT)
    except BrokenPipeError:
        # The reader of the output has gone, as `| head` does: not an error.
        _drop_output()
        return 1
    except (SpikefoldError, OSError) as error:
        print_error(one_line(error))
        _drop_output()
        return 1
    return status


def _print_any_name() -> None:
    """Names of files need not be UTF-8; what cannot be printed is escaped, as it is in errors."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run(words: list[str]) -> int:
    """Find the command and do it; its exit status."""
    words = import_extensions(words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"spikefold {version('spikefold')}")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        print_error(unknown("command", name, COMMANDS))
        return 2
    _require_once(name, rest)
    try:
        find_command(name)(rest)
    except SystemExit as parsed:
        # How the parser reports --help and wrong usage.
        return int(parsed.code or 0)
    return 0


def _show_warning(
    message: Warning | str, category: type[Warning], *place: Any, otherwise: Callable[..., None]
) -> None:
    """A warning of ours as one line; those of libraries as Python shows them."""
    if issubclass(category, SpikefoldWarning):
        print_error(f"note: {message}")
    else:
        otherwise(message, category, *place)


def _drop_output() -> None:
    """Drop output that could not be written: the interpreter would try again at exit, and fail."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _require_once(command: str, words: Sequence[str]) -> None:
    """Refuse an option that is given twice: the parser would forget the first."""
    given = set()
    for word in words:
        if not word.startswith(("--", "-o")):
            continue
        spelled = word.partition("=")[0]
        option = spelled.replace("_", "-")
        option = OUTPUT if option in ("-o", "--out") else option
        if option in given:
            raise ConfigError(f"{command}: {spelled} is given twice: put all its values behind one")
        given.add(option)
