"""One contest: which contestants do which work, at which size, on how many threads."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from benchmarks import deploy, networks, neurons, norms
from benchmarks.contestant import Contestants

Kind = Literal["neuron", "step", "inference", "deploy", "norms", "norms, shipped"]
Axis = Literal["", "steps", "batch", "width"]


@dataclass(frozen=True)
class Contest:
    """Who measures what, how large.

    Arguments:
        kind: of work.
        size: shape of a neuron layer; width, batch and steps of a network, and which model.
        threads: of torch.
        device: "cpu" or "cuda".
        seconds: how long turns are taken.
        names: of the contestants; empty: all.
        measure: "time", "time+peak" or "kept" (memory for the backward pass).
        axis: what grows from one contest to the next, where that is the question.
    """

    kind: Kind
    size: dict[str, Any]
    threads: int = 1
    device: str = "cpu"
    seconds: float = 15.0
    names: list[str] = field(default_factory=list)
    measure: Literal["time", "time+peak", "kept"] = "time"
    axis: Axis = ""

    def smaller(self) -> "Contest":
        """The same on as little data as makes sense."""
        if self.kind == "neuron":
            return replace(self, size={"shape": [*self.size["shape"][:1], 2, 4, 4, 4]})
        return replace(self, size={**self.size, "batch": 2, "width": 0.03125})

    def quick(self) -> "Contest":
        """The same in a few seconds; a network's peak memory stands for that of all."""
        measure = "time" if self.kind == "neuron" else self.measure
        return replace(self.smaller(), seconds=0.5, measure=measure)

    def title(self) -> str:
        """In words, for progress."""
        size = ", ".join(f"{key} {value}" for key, value in self.size.items())
        return f"{self.kind}: {size}; threads {self.threads}"


def contestants(contest: Contest) -> Contestants:
    """Those that take part; none is built yet."""
    device = torch.device(contest.device)
    if contest.kind == "neuron":
        made = neurons.contestants(contest.size["shape"], device)
    elif contest.kind == "step":
        made = networks.training(contest.size, device)
    elif contest.kind == "deploy":
        made = deploy.contestants(contest.size, device)
    elif contest.kind.startswith("norms"):
        made = norms.contestants(contest.size, device, train=contest.kind == "norms")
    else:
        made = networks.inference(contest.size, device)
    names = [name for name in contest.names if name in made] or list(made)
    return {name: made[name] for name in names}
