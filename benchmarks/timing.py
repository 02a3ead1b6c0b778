"""Time of several contestants that take turns in one process."""

import gc
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

ROUNDS = (3, 200)  # at least, at most
SHORTEST = 0.01  # seconds a turn lasts at least: short work is repeated within a turn

Times = dict[str, float]


def in_turns(
    runs: dict[str, Callable[[], Any]], device: torch.device, seconds: float
) -> tuple[int, dict[str, Times]]:
    """Median and minimum times of one unit of work each, in rounds of alternating order.

    "work" is the CPU time of all threads, or on a GPU the time between two events: what a busy
    machine disturbs least, its minimum above all. "wall" is what a clock on the wall shows.

    Arguments:
        runs: one unit of work each, by name.
        device: on which they work.
        seconds: after which no further round begins.

    Returns:
        number of rounds, and by name "work_min", "work_median", "wall_min", "wall_median" in
        seconds.
    """
    clock = event_clock if device.type == "cuda" else cpu_clock
    calls = {name: calls_a_turn(run, clock) for name, run in runs.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    names, rounds, start = list(runs), 0, time.perf_counter()
    gc.collect()
    gc.disable()
    try:
        while rounds < ROUNDS[0] or (rounds < ROUNDS[1] and time.perf_counter() - start < seconds):
            for name in names if rounds % 2 == 0 else reversed(names):
                times[name].append(clock(runs[name], calls[name]))
            rounds += 1
    finally:
        gc.enable()
    return rounds, {name: summary(pairs) for name, pairs in times.items()}


def summary(pairs: list[tuple[float, float]]) -> Times:
    """Minimum and median of work and wall times."""
    return {
        f"{kind}_{of.__name__}": of(values)
        for kind, values in zip(("work", "wall"), zip(*pairs, strict=True), strict=True)
        for of in (min, statistics.median)
    }


def calls_a_turn(run: Callable[[], Any], clock: Callable[..., tuple[float, float]]) -> int:
    """How often short work is repeated within a turn; the second of two warm-up calls tells."""
    run()
    _, wall = clock(run, 1)
    return max(1, math.ceil(SHORTEST / wall))


def cpu_clock(run: Callable[[], Any], calls: int) -> tuple[float, float]:
    """CPU time of all threads and wall time, per call."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        run()
    return (time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls


def event_clock(run: Callable[[], Any], calls: int) -> tuple[float, float]:
    """Time on the GPU between two events and wall time, per call."""
    before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    wall = time.perf_counter()
    before.record()
    for _ in range(calls):
        run()
    after.record()
    torch.cuda.synchronize()
    return before.elapsed_time(after) / 1000 / calls, (time.perf_counter() - wall) / calls
