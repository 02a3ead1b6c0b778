"""The record of all suites: one JSON file, and where and with what it was measured."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import spikefold as sf
from benchmarks.contestant import SEED

PACKAGES = ("spikefold", "spikingjelly", "snntorch", "norse", "torch", "numpy")


def environment(device: str) -> dict[str, Any]:
    """Hardware, versions, commit and time."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
        "neurons": neurons(device),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in PACKAGES},
        "commit": commit(),
        "seed": SEED,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def neurons(device: str) -> str:
    """Which implementation spikefold runs here: "fused" or, without kernels, "reference"."""
    lif = sf.LIF(norm=sf.MPBN(1)).to(device)
    try:
        with sf.backend("fused"):
            lif(torch.zeros(1, 2, 1, 2, 2, device=device))
    except sf.ConfigError:
        return "reference"
    return "fused"


def processor() -> str:
    """The processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def commit() -> str:
    """The checked out commit, "+" if the work tree differs from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    return done.stdout.strip()


def load(path: Path) -> dict[str, Any]:
    """The record so far; empty if there is none. A file that is no record ends the command."""
    try:
        return json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        sys.exit(f"{path} is no record ({error}): delete it and measure again")


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text)
    temporary.replace(path)


def save(path: Path, record: dict[str, Any]) -> None:
    """Write the record."""
    write(path, json.dumps(record, indent=1) + "\n")
