"""What was seen of a network while it ran."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from torch import Size, Tensor, nn


@dataclass
class Inputs:
    """Inputs of one shape that a connection was given.

    Attributes:
        held: in how many of them a value is not 0, of their shape.
        number: of inputs.
        frames: as many as an artificial network would have had, without time steps.
    """

    held: Tensor
    number: int = 0
    frames: int = 0


@dataclass
class Seen:
    """What was seen while a network ran, by module; sums over all samples.

    Attributes:
        forms: of batches: time steps, and updates of neurons a sample, which sizes determine.
    """

    samples: int = 0
    steps: int = 0
    forms: set[tuple[int, float]] = field(default_factory=set)
    inputs: dict[nn.Module, dict[Size, Inputs]] = field(default_factory=lambda: defaultdict(dict))
    multiplies: set[nn.Module] = field(default_factory=set)
    updates: Counter[nn.Module] = field(default_factory=Counter)
    fired: Counter[nn.Module] = field(default_factory=Counter)
    norm_operations: Counter[nn.Module] = field(default_factory=Counter)
