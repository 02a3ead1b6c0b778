"""Run one contest: check, then time, then look at memory."""

from dataclasses import asdict
from typing import Any

import torch

from benchmarks.contest import Contest, contestants
from benchmarks.contestant import SEED, Contestant
from benchmarks.memory import kept_for_backward, left_allocated, peak
from benchmarks.timing import in_turns


def run(contest: Contest) -> dict[str, Any]:
    """Everything that is known of a contest after it.

    Arguments:
        contest: what to measure.

    Returns:
        the contest, the number of rounds, and by contestant its check, times and bytes.
    """
    torch.manual_seed(SEED)
    torch.set_num_threads(contest.threads)
    made = {name: make() for name, make in contestants(contest).items()}
    results = {name: checked(contestant) for name, contestant in made.items()}
    record = {**asdict(contest), "results": results}
    if contest.measure == "kept":
        for name, contestant in made.items():
            results[name].update(kept(contestant, torch.device(contest.device)))
        return record
    work = {name: contestant.run for name, contestant in made.items()}
    record["rounds"], times = in_turns(work, torch.device(contest.device), contest.seconds)
    for name, seconds in times.items():
        results[name].update(seconds)
    made.clear()
    work.clear()
    if contest.measure == "time+peak":
        for name, result in results.items():
            result["peak_bytes"] = peak(contest, name)
    return record


def checked(contestant: Contestant) -> dict[str, Any]:
    """Whether its result is right; a contestant without a check has none to get wrong."""
    if contestant.check is None:
        return {"passed": True, "check": "nothing to check"}
    check = contestant.check()
    return {"passed": check.passed, "check": check.what}


def kept(contestant: Contestant, device: torch.device) -> dict[str, int]:
    """Memory kept for the backward pass, as saved tensors and as the allocator sees it."""
    return {
        "kept_bytes": kept_for_backward(contestant.loss, contestant.parameters),
        "left_allocated_bytes": left_allocated(contestant.loss, device),
    }
