"""What a model is built from: the user's choices, and what follows from the data."""

from dataclasses import KW_ONLY, dataclass
from typing import Literal

from spikefold.dynamics import Neuron
from spikefold.errors import ConfigError
from spikefold.ranges import require_one_of, require_within

Norm = Literal["mpbn", "mpbn-element", "mpbn-steps", "none"]
AfterConnection = Literal["bn", "tdbn", "bntt", "tebn", "tab", "none"]
PER_STEP = ("mpbn-steps", "bntt", "tebn", "tab")  # norms that have something for each time step
Learnt = Literal["no", "layer", "channel"]


@dataclass(frozen=True)
class Task:
    """What follows from the data.

    Arguments:
        num_classes: K, the number of logits.
        in_channels: 1 for gray images, 3 for colour images, 2 for events.
        image_size: height and width of the input: "mpbn-element" takes no other, nor what is
            exported of a network that does not say how its input is read.

    Raises:
        ConfigError: if a number is not positive, or beyond reason.
    """

    num_classes: int = 10
    _: KW_ONLY
    in_channels: int = 3
    image_size: int = 32

    def __post_init__(self) -> None:
        require_within(
            "model",
            self,
            num_classes="[1, 10000000]",
            in_channels="[1, 10000]",
            image_size="[1, 10000]",
        )


@dataclass(frozen=True)
class Options:
    """The user's choices, independent of the data.

    Arguments:
        norm: of the membrane potential: "mpbn" channel-wise, "mpbn-element" element-wise,
            "mpbn-steps" channel-wise with a set for each of `steps`, or "none".
        current_norm: after the connection: batch norm "bn", "tdbn", "bntt", "tebn", "tab" (the last
            three have a map for each of `steps`), or "none".
        rate: share of the potentials that fire at the start, where they are normally distributed
            (see `MPBN`); None: MPBN begins with shift 0.
        width: factor on all channel numbers.
        steps: time steps an image is shown where `forward` is not told; or the number of an event
            recording's frames.
        learn_decay: of the neurons, from their `decay` on: "no", one a "layer" or a "channel".
        standardize: bring each input channel to mean 0 and deviation 1, by a mean and deviation
            kept in the network, which training estimates from its samples.

    Raises:
        ConfigError: if a value is out of range.
    """

    norm: Norm = "mpbn"
    _: KW_ONLY
    current_norm: AfterConnection = "bn"
    rate: float | None = None
    width: float = 1.0
    steps: int | None = None
    learn_decay: Learnt = "no"
    standardize: bool = False

    def __post_init__(self) -> None:
        require_within("model", self, width="(0, 1000]", steps="[1, 10000]", rate="(0, 1)")
        require_one_of("model", self)
        for name in ("norm", "current_norm"):
            if getattr(self, name) in PER_STEP and self.steps is None:
                raise ConfigError(
                    f"model: {name} {getattr(self, name)} needs steps, because it has a set for "
                    "each"
                )
        if self.rate is not None and self.norm == "none":
            raise ConfigError("model: rate is where MPBN begins, but norm is none")


@dataclass(frozen=True)
class Arguments(Options, Task):
    """What every model is built from: the user's choices, and what follows from the data.

    Arguments:
        neuron: constants of all neurons; default: the paper's.

    Raises:
        ConfigError: if a value is out of range.
    """

    _: KW_ONLY
    neuron: Neuron = Neuron()

    def __post_init__(self) -> None:
        Options.__post_init__(self)
        Task.__post_init__(self)
