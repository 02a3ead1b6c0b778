"""The command: `python -m benchmarks [suite]`; see --help."""

import os
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro
from tqdm import tqdm

from benchmarks import plots, record, report, runner
from benchmarks.suites import Suite, plan

INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """Measure spikefold against its peers.

    Arguments:
        suite: what to measure, or "report": table and plot from the record that is there.
        quick: the smallest sizes and few rounds, to see that it works (under a minute).
        threads: number of torch threads; default: one, and where it is cheap all as well.
        device: where the tensors lie.
        seconds: how long the contestants of a contest take turns; default: the suite's, for a CPU.
        out: folder for record, table and plot.
    """

    suite: Annotated[
        Literal[
            "neuron", "step", "inference", "deploy", "norms", "memory", "scaling", "all", "report"
        ],
        tyro.conf.Positional,
    ] = "all"
    quick: bool = False
    threads: int | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    seconds: float | None = None
    out: Path = Path("runs/benchmarks")


def measure(suite: Suite, options: Options, path: Path) -> None:
    """Run a suite; what is done is written after each contest."""
    contests = plan(suite, threads(options), options.device, options.quick)
    if options.seconds is not None:
        contests = [replace(contest, seconds=options.seconds) for contest in contests]
    environment = record.environment(options.device)
    done: list[dict] = []
    with tqdm(contests, file=sys.stderr, desc=suite) as progress:
        for contest in progress:
            progress.set_postfix_str(contest.title())
            done.append(runner.run(contest))
            entry = {"environment": environment, "contests": done}
            record.save(path, {**record.load(path), suite: entry})


def threads(options: Options) -> list[int]:
    """What was asked for, or one and all; a GPU's host has one."""
    if options.threads is not None:
        return [options.threads]
    cores = os.cpu_count() or 1
    return [1] if options.device == "cuda" else sorted({1, cores})


def main() -> int:
    """Measure and report."""
    # The peers' warnings (no Triton on a CPU, deprecated calls of their own) are not the user's.
    warnings.filterwarnings("ignore", module="spikingjelly|snntorch|norse|torch")
    options = tyro.cli(Options, description="Measure spikefold against its peers.")
    name = "quick" if options.quick else "benchmark"
    path = options.out / f"{name}-{options.device}.json"
    suites = get_args(Suite) if options.suite == "all" else (options.suite,)
    try:
        for suite in suites:
            if suite != "report":
                measure(suite, options, path)
    except KeyboardInterrupt:
        print(f"interrupted; what was finished is in {path}", file=sys.stderr)
        return INTERRUPTED
    finished = record.load(path)
    if not finished:
        print(f"no record at {path}: measure first", file=sys.stderr)
        return 1
    table = report.markdown(finished)
    record.write(path.with_suffix(".md"), table)
    plots.draw(finished, path)
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
