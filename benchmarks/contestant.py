"""What takes part: one unit of work, and how its result is checked before it is timed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SEED = 0
DECAY, THRESHOLD = 0.25, 0.5  # the official MPBN code's, for everyone


@dataclass(frozen=True)
class Check:
    """What came of a comparison with the straight formula.

    Arguments:
        passed: whether times may be compared.
        what: in words, with the numbers.
    """

    passed: bool
    what: str


@dataclass(frozen=True)
class Contestant:
    """One way to do the work.

    Arguments:
        run: one unit of work, from input to result; resets the state of peers that keep one.
        check: compares spikes (and gradients) with the straight formula; None: nothing to check.
        loss: forward pass alone, for the memory that its graph keeps; None where there is none.
        parameters: what is there before the forward pass, so that no graph "keeps" it.
    """

    run: Callable[[], Any]
    check: Callable[[], Check] | None = None
    loss: Callable[[], Tensor] | None = None
    parameters: tuple[Tensor, ...] = ()


# Built when needed: a child process that measures memory makes one contestant only.
Contestants = dict[str, Callable[[], Contestant]]


def generator() -> torch.Generator:
    """The same random numbers for everyone, on every device."""
    return torch.Generator().manual_seed(SEED)


def randomize(norm: nn.Module) -> None:
    """Gains of 0.5 to 1.5 and small shifts, so that a normalization is not the identity."""
    random = generator()
    with torch.no_grad():
        for name, values in {
            "weight": 0.5 + torch.rand(norm.weight.shape, generator=random),
            "bias": 0.2 * torch.randn(norm.bias.shape, generator=random),
        }.items():
            getattr(norm, name).copy_(values)
