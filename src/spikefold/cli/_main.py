"""From words to commands."""

import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from spikefold.cli import _datasets, _experiments, _import, _networks, _predict, _sweep
from spikefold.cli._extensions import import_extensions
from spikefold.cli._output import print_error
from spikefold.errors import ConfigError, SpikefoldError
from spikefold.registry import unknown

# each takes the words after its own name
COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "run": (_experiments.run_command, "train, fold, fuse, verify, evaluate and report a recipe"),
    "train": (_experiments.train_command, "only train a recipe"),
    "fold": (_networks.fold_command, "fold a checkpoint's MPBN into its thresholds"),
    "verify": (_networks.verify_command, "compare two networks spike by spike on real data"),
    "evaluate": (_networks.evaluate_command, "accuracy of a network file"),
    "import": (_import.import_command, "make a network file of the official code's checkpoint"),
    "predict": (_predict.predict_command, "class of one event recording or image"),
    "sweep": (_sweep.sweep_command, "run recipes x settings x seeds; resumes where it stopped"),
    "table": (_sweep.table_command, "mean and deviation of accuracy over many runs"),
    "recalibrate": (_networks.recalibrate_command, "estimate a checkpoint's statistics anew"),
    "datasets": (_datasets.datasets_command, "list the data sets, and whether they are there"),
    "recipes": (_experiments.recipes_command, "list the recipes"),
    "show": (_experiments.show_command, "a recipe with all its settings, as a file: > my.toml"),
}


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
            "spikefold COMMAND --help explains a command; all know --json.",
            "--import MODULE, before it, imports what registers models, data sets or recipes.",
        ]
    )


def main(words: Sequence[str] | None = None) -> int:
    """Run one command.

    Arguments:
        words: what follows `spikefold`; default: the process's own.

    Returns:
        exit status: 0, or 1 for an error, 2 for wrong usage, 130 when interrupted.
    """
    words = list(sys.argv[1:] if words is None else words)
    try:
        words = import_extensions(words)
    except SpikefoldError as error:
        print_error(str(error))
        return 1
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
    try:
        _require_once(name, rest)
        COMMANDS[name][0](rest)
        sys.stdout.flush()
    except SpikefoldError as error:
        print_error(str(error))
        return 1
    except KeyboardInterrupt as interrupt:
        print_error(str(interrupt) or "interrupted")
        return 130
    except BrokenPipeError:  # who read the output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SystemExit as parsed:  # how the parser reports --help and wrong usage
        return int(parsed.code or 0)
    return 0


def _require_once(command: str, words: Sequence[str]) -> None:
    """Refuse an option that is given twice: the parser would forget the first."""
    options = [word.partition("=")[0] for word in words if word.startswith("--")]
    for option in options:
        if options.count(option) > 1:
            raise ConfigError(f"{command}: {option} is given twice: put all its values behind one")
