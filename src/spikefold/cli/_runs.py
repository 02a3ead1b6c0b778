"""Where a run's files go, and with which settings it goes on."""

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from spikefold.cli._extensions import OPTION
from spikefold.cli._output import print_error
from spikefold.cli._parsing import Json
from spikefold.errors import ConfigError
from spikefold.plain import to_plain
from spikefold.recipes import Recipe, is_file, read_recipe
from spikefold.records import CONFIG, LAST
from spikefold.registry import IMPORTED
from spikefold.saving import LOCK, is_first, locked
from spikefold.training import Experiment, differences

T = TypeVar("T")


@dataclass(frozen=True)
class RunFlags:
    """Options of a run besides its configuration."""

    out: Path | None = None
    """directory of the run; default: runs/RECIPE"""
    resume: bool = False
    """go on with the run, interrupted or finished, with the settings it was begun with; or, in the
    place of RECIPE: --resume DIRECTORY"""
    overwrite: bool = False
    """replace a run that is there"""
    json: Json = False


def spelled_out(words: Sequence[str]) -> list[str]:
    """`--resume DIRECTORY ...` as the recipe that the directory holds, and the option.

    Raises:
        ConfigError: if it holds none.
    """
    if len(words) < 2 or words[0] != "--resume" or words[1].startswith("-"):
        return list(words)
    _require_run(Path(words[1]))
    return [str(Path(words[1]) / CONFIG), "--resume", *words[2:]]


def _require_run(directory: Path) -> None:
    if not (directory / LAST).exists():
        raise ConfigError(f"{directory} holds no run to resume")


def directory_of(word: str, recipe: Recipe, flags: RunFlags) -> Path:
    """Where a run's files go.

    Arguments:
        word: by which the recipe was named.
        recipe: what was found.
        flags: may say it.
    """
    if flags.out is not None:
        return flags.out
    path = Path(word)
    if not (is_file(word) and (path.is_dir() or path.name == CONFIG)):
        return Path("runs") / recipe.name
    own = path if path.is_dir() else path.parent
    return own if flags.resume else Path("runs") / f"{own.resolve().name}-again"


def recorded(directory: Path, word: str, recipe: Recipe) -> Recipe:
    """The settings with which a run goes on: those it was begun with.

    Arguments:
        directory: of the run.
        word: by which the recipe was named.
        recipe: what was found; where a file says otherwise, that is told.

    Raises:
        ConfigError: if there is no run.
    """
    path = directory / CONFIG
    if not (is_first() or path.exists()):  # a node without the first one's files
        return recipe
    _require_run(directory)
    found = read_recipe(path)
    others = differences(to_plain(found.experiment), to_plain(recipe.experiment))
    if others and is_file(word) and is_first():
        print_error(f"note: going on as {path} says, not as {word}: {', '.join(others)}")
    return found


def make_free(directory: Path, experiment: Experiment, flags: RunFlags) -> None:
    """Make sure that a run may write into its directory; the first process does.

    Raises:
        ConfigError: if another run is there.
    """
    if not is_first() or flags.resume or not (directory / LAST).exists():
        return
    if not flags.overwrite:
        raise ConfigError(
            f"{directory} holds a run: --resume goes on with it, --overwrite replaces it, "
            "--out DIRECTORY puts the new one elsewhere"
        )
    if experiment.init and directory.resolve() in Path(experiment.init).resolve().parents:
        raise ConfigError(f"--init {experiment.init} lies in {directory}, which would be replaced")
    with locked(directory):
        for path in directory.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()


def interruptible(work: Callable[[], T], command: str, directory: Path) -> T:
    """Do the work; when interrupted, say how to go on."""
    try:
        return work()
    except KeyboardInterrupt as error:
        if not (directory / LAST).exists():
            raise type(error)("interrupted before the training began") from error
        imports = [word for module in IMPORTED for word in (OPTION, module)]
        words = ["spikefold", *imports, command, "--resume", str(directory)]
        raise type(error)(
            f"interrupted; to go on from the last epoch: {shlex.join(words)}"
        ) from error
