"""Memory that a graph keeps for its backward pass, and the peak of one unit of work.

`python -m benchmarks.memory '{"contest": ..., "name": ...}'` is the child process that measures a
peak on the CPU: alone, so that nobody else's memory is counted.
"""

import json
import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.contest import Contest, contestants

SETTLED = 2  # units of work during which the peak is watched


class Saved:
    """A tensor that a node of the graph saved; dies with the node."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # an output that held itself would never be freed


def kept_for_backward(loss: Callable[[], Tensor], before: tuple[Tensor, ...]) -> int:
    """Bytes of the distinct storages that a graph keeps, those that were there before apart.

    Arguments:
        loss: makes the graph.
        before: parameters, buffers and input.
    """
    references: list[weakref.ref[Saved]] = []

    def pack(tensor: Tensor) -> Saved:
        saved = Saved(tensor)
        references.append(weakref.ref(saved))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        made = loss()
    # Nodes that the loss does not depend on are gone by now, unless someone holds on to them.
    storages = [saved.tensor.untyped_storage() for ref in references if (saved := ref())]
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    known = {tensor.untyped_storage().data_ptr() for tensor in before}
    del made
    return sum(size for pointer, size in sizes.items() if pointer not in known)


def left_allocated(loss: Callable[[], Tensor], device: torch.device) -> int:
    """The same seen from the allocator: bytes that a forward pass allocates and does not free.

    It counts what hooks for saved tensors cannot see, and what is not for the backward pass (small:
    running statistics, the loss).
    """
    with torch.no_grad():
        loss()  # a state that a peer holds on to is there from now on, without a graph
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        made = loss()
        left = torch.cuda.memory_allocated() - before
    else:
        with torch.autograd.profiler.profile(use_kineto=False, profile_memory=True) as profile:
            made = loss()
        left = sum(event.self_cpu_memory_usage for event in profile.function_events)
    del made
    return left


def peak(contest: Contest, name: str) -> int | None:
    """Bytes that one unit of work needs beyond what was there before it.

    On a GPU the allocator tells. On a CPU it is resident memory, in a process of its own; None
    where the system does not tell (it is Linux that can reset its record).
    """
    if contest.device == "cuda":
        return peak_on_gpu(contestants(contest)[name]().run)
    if not Path("/proc/self/clear_refs").exists():
        return None
    task = json.dumps({"contest": asdict(contest), "name": name})
    command = [sys.executable, "-m", "benchmarks.memory", task]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def peak_on_gpu(run: Callable[[], object]) -> int:
    """Bytes allocated at most, beyond those before."""
    run()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(SETTLED):
        run()
    return torch.cuda.max_memory_allocated() - before


def resident_peak(run: Callable[[], object]) -> int:
    """Bytes resident at most, beyond those before."""
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets the record of the peak
    for _ in range(SETTLED):
        run()
    return status("VmHWM") - before


def status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def main() -> None:
    """Measure one contestant and print bytes."""
    task = json.loads(sys.argv[1])
    contest = Contest(**task["contest"])
    torch.set_num_threads(contest.threads)
    contestants(contest.smaller())[task["name"]]().run()  # code is loaded before we look
    print(resident_peak(contestants(contest)[task["name"]]().run))


if __name__ == "__main__":
    main()
