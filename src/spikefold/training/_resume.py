"""With which settings an interrupted or finished run may go on."""

from pathlib import Path
from typing import Any

from spikefold.errors import ConfigError
from spikefold.plain import to_plain
from spikefold.training._config import Experiment


def require_continued(recorded: Experiment, asked: Experiment, path: Path) -> None:
    """Refuse settings with which a run would not continue as it was started.

    Arguments:
        recorded: the run's own settings.
        asked: those it is to go on with; more epochs are fine where the learning rate of the
            epochs before does not depend on their number.
        path: of the recorded settings.

    Raises:
        ConfigError: names the settings.
    """
    changed = differences(to_plain(recorded), to_plain(asked))
    if not changed:
        return
    there, here = recorded.optimizer.epochs, asked.optimizer.epochs
    if there == here or len(changed) > 1:
        why = ""
    elif here < there:
        why = "; it can only be made longer"
    elif recorded.optimizer.schedule == "constant":
        return
    else:
        why = (
            f"; its learning rate falls along a cosine to 0 in {there} epochs, so a run of {here} "
            "would have been another from its first epoch (only a constant one allows more); to "
            f"train on from its weights: --init {path.parent / 'best.safetensors'}"
        )
    raise ConfigError(
        f"cannot resume with another configuration than {path}: {', '.join(changed)}{why}"
    )


def differences(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two configurations differ, one line each."""
    lines = []
    for key in sorted(one.keys() | other.keys()):
        a, b, name = one.get(key), other.get(key), f"{prefix}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{name}.")
        elif a != b:
            lines.append(f"{name} is {a} there, {b} here")
    return lines
