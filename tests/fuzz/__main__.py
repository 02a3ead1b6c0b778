"""Attacks one target, or all: `python -m tests.fuzz [TARGET ...] --seconds 60 --seed 0`.

Each attempt has a generator of its own, seeded by target, seed and number, so that what went wrong
is done again by `--seed S --first NUMBER --count 1`. The process has 6 GiB of memory and an attempt
20 seconds; both count as faults. A crash ends the process: the number stands in the last line.
"""

import argparse
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from spikefold.errors import SpikefoldError
from tests.fuzz.targets import TARGETS, Attempt

MEMORY, PATIENCE = 6 * 2**30, 20


class TooSlow(BaseException):
    """An attempt that takes longer than anybody would wait."""


def _too_slow(*_: object) -> None:
    raise TooSlow


def chance(name: str, seed: int, number: int) -> random.Random:
    """What decides about an attempt."""
    return random.Random(f"{name} {seed} {number}")


def outcome(attempt: Attempt, chance: random.Random) -> str | None:
    """What kind of line a user would get; None for a fault, which is printed."""
    signal.alarm(PATIENCE)
    try:
        attempt(chance)
    except SpikefoldError as error:
        if not str(error).strip() or len(str(error).splitlines()) != 1:
            print(f"not one line: {error!r}")
            return None
        return type(error).__name__
    except BaseException:
        traceback.print_exc()
        return None
    finally:
        signal.alarm(0)
    return "accepted"


def attack(name: str, arguments: argparse.Namespace) -> int:
    """Attempts on one target until time or number is reached; the number of faults."""
    found, faults, started = Counter[str](), 0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        attempt = TARGETS[name](Path(folder))
        number = arguments.first
        while number < arguments.first + arguments.count:
            if time.monotonic() - started > arguments.seconds:
                break
            print(f"\r{name} {number}", end="", file=sys.stderr, flush=True)
            kind = outcome(attempt, chance(name, arguments.seed, number))
            if kind is None:
                print(f"FAULT: {name} --seed {arguments.seed} --first {number} --count 1")
                faults += 1
            found[kind or "fault"] += 1
            number += 1
    told = ", ".join(f"{count} {kind}" for kind, count in found.most_common())
    print(f"\r{name}: {sum(found.values())} attempts: {told}")
    return faults


def main() -> int:
    """Attack; 1 if there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=[], choices=[[], *TARGETS])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_slow)
    warnings.simplefilter("ignore")
    names = arguments.targets or list(TARGETS)
    arguments.seconds /= len(names)
    faults = [attack(name, arguments) for name in names]
    return int(any(faults))


if __name__ == "__main__":
    sys.exit(main())
