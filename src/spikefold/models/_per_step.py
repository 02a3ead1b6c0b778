"""MPBN with a set for each time step, made of one with a set for all."""

from dataclasses import replace
from typing import TypeVar, cast

from torch import nn

from spikefold.errors import ConfigError
from spikefold.models._network import Network
from spikefold.nn import LIF, MPBN, copied, replaced, strange

ModelT = TypeVar("ModelT", bound=nn.Module)


def per_step(network: ModelT, steps: int | None = None) -> ModelT:
    """A new network whose MPBN has a set for each time step, each starting from the one for all.

    It computes what the network computes. In training MPBN takes the statistics of each step's
    batch, but in evaluation one set for all steps: where the steps differ, that is not what
    training saw. `training.recalibrate` of the new network gives each step its own, and the fold
    makes a threshold of each.

    Arguments:
        network: not folded; not changed. MPBN that is not in a neuron keeps its one set.
        steps: T; default: the network's own.

    Raises:
        ConfigError: if there is no such MPBN, it is not channel-wise in a model of
            `spikefold.models`, something is attached to it, or T is not known or another than the
            network's; names the layer.

    Example:
        >>> import spikefold as sf
        >>> network = sf.per_step(sf.models.small(norm="mpbn", steps=4))
        >>> network.features[0].lif.norm.running_mean.shape
        torch.Size([4, 32])
    """
    new = copied(network)
    if isinstance(new, Network):
        steps = _steps_of(new, steps)
    if steps is None:
        raise ConfigError("per_step: give steps, the number of time steps")
    sets = {}
    for name, module in new.named_modules():
        norm = module.norm if isinstance(module, LIF) else None
        if isinstance(norm, MPBN) and norm.steps is None:
            _require_plain(norm, f"{name}.norm".lstrip("."))
            sets[id(norm)] = norm.per_step(steps)
    if not sets:
        raise ConfigError(
            "per_step: the network has no MPBN with one set for all steps (folding takes it out)"
        )
    if isinstance(new, Network):
        new.arguments = replace(new.arguments, norm="mpbn-steps", steps=steps)
    return cast(ModelT, replaced(new, sets))


def _steps_of(network: Network, steps: int | None) -> int | None:
    arguments = network.arguments
    if arguments.norm == "mpbn-element":
        raise ConfigError("per_step: norm is mpbn-element, and only mpbn has a set for each step")
    if None not in (steps, arguments.steps) and steps != arguments.steps:
        raise ConfigError(f"per_step: the network has {arguments.steps} steps, not {steps}")
    return arguments.steps if steps is None else steps


def _require_plain(norm: MPBN, place: str) -> None:
    if type(norm) is not MPBN:
        raise ConfigError(
            f"per_step: layer '{place}' is a {type(norm).__name__}: only MPBN itself is known"
        )
    if why := strange(norm):
        raise ConfigError(f"per_step: layer '{place}': {why}")
