"""The files of a run, by name, and JSON that any reader takes, written whole."""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikefold.replacing import replacing

# what training writes
CONFIG, METRICS = "config.json", "metrics.jsonl"
LAST, BEST = "last.safetensors", "best.safetensors"
# what `run` adds
SUMMARY, POTENTIALS, RASTER = "summary.json", "potentials.json", "raster.json"
CONFUSIONS, VERIFICATION, THRESHOLDS = "confusions.json", "verification.json", "thresholds.json"
FOLDED, FUSED = "folded.safetensors", "fused.safetensors"
# what `spikefold landscape` may put beside them
LANDSCAPE = "landscape.json"


def sha256(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finite(value: Any) -> Any:
    """The same plain data with None for NaN and infinities, which JSON has not."""
    if isinstance(value, Mapping):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, record: Any) -> None:
    """Write plain data, whole or not at all; a number that is not finite is null.

    Raises:
        FileFormatError: if the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(finite(record), indent=2, allow_nan=False) + "\n")
