"""The state of a stream, which the caller keeps; and which modules cannot step."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from spikefold.dynamics import Condition, Normalization
from spikefold.errors import ConfigError, ShapeError
from spikefold.nn._attached import attached

TimedT = TypeVar("TimedT", Condition, Normalization)


class State(NamedTuple):
    """The state of a layer's neurons in a stream: plain data.

    Attributes:
        v: membrane potential `[N, C, *spatial]`; None at rest.
        t: time steps done; None where entries of the batch stand at different ones.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4).eval()
        >>> _, state = network.step(torch.rand(8, 1, 8, 8))
        >>> state = {name: layer.reset([0, 5]).to("cpu") for name, layer in state.items()}
    """

    v: Tensor | None
    t: int | None

    def to(self, device: torch.device | str) -> "State":
        """The same on another device."""
        return self if self.v is None else self._replace(v=self.v.to(device))

    def reset(self, entries: Sequence[int] | Tensor) -> "State":
        """The same with some entries of the batch at rest; the others go on.

        Neurons with parameters of each time step cannot go on from there.

        Arguments:
            entries: their numbers, or a mask `[N]`.

        Raises:
            ShapeError: if the batch has no such entries.
        """
        if self.v is None:
            return self
        v = self.v.clone()
        try:
            v[torch.as_tensor(entries, device=v.device)] = 0
        except IndexError as error:
            raise ShapeError(f"entries {entries} of a batch of {len(v)}: {error}") from error
        return State(v, None)

    def advanced(self, v: Tensor) -> "State":
        """After one more step, which left these potentials."""
        return State(v, None if self.t is None else self.t + 1)

    def part(self, whole: TimedT, steps: int, owner: str) -> TimedT:
        """What a condition or normalization is in the next time steps.

        Arguments:
            whole: of all time steps.
            steps: how many.
            owner: has these parameters, for messages.

        Raises:
            ShapeError: past the last step for which there are parameters.
            ConfigError: if it depends on t, and there is not one t for all entries.
        """
        total = whole.steps()
        if self.t is None:
            norm = whole if isinstance(whole, Normalization) else whole.norm
            if total is not None or not (norm is None or isinstance(norm, Normalization)):
                raise ConfigError(
                    "entries of this stream stand at different time steps, for each of which "
                    f"{owner} may have other parameters: restart the whole batch (state=None)"
                )
            return whole
        if total is not None and self.t + steps > total:
            raise ShapeError(
                f"time step {self.t + steps} of a stream is past the last of {total}, for which "
                f"{owner} have parameters"
            )
        return whole.part(self.t, steps)


def begun(state: State | None) -> State:
    """The state, at rest if there is none.

    Raises:
        ConfigError: if it is not one that `step` returned.
    """
    if state is None:
        return State(None, 0)
    if not isinstance(state, State):
        raise ConfigError(f"a state is what step returned, a State, got {type(state).__name__}")
    return state


def require_step(module: nn.Module) -> None:
    """Refuse a module whose `step` may do something else than a call.

    Raises:
        ConfigError: if it has a forward of its own and no step to go with it, or hooks.
    """
    name = type(module).__name__
    for cls in type(module).__mro__:
        if "step" in vars(cls):
            break
        if "forward" in vars(cls):
            raise ConfigError(
                f"{name} cannot step: it has a forward of its own, and no step(x, state) to go "
                "with that"
            )
    refuse_hooks(module)


def refuse_hooks(module: nn.Module) -> None:
    """Refuse a module of which a step would leave something out.

    Raises:
        ConfigError: if it carries hooks, or a forward of its own.
    """
    what = attached(module)
    if what:
        name = type(module).__name__
        raise ConfigError(f"{name} cannot step: it carries {what}, which a stream would not call")


def require_evaluation(module: nn.Module) -> None:
    """Refuse training, whose statistics are those of whole sequences.

    Raises:
        ConfigError: in training mode.
    """
    if module.training:
        raise ConfigError(
            f"{type(module).__name__}.step is for evaluation, and this one is in training mode: "
            "call eval() first"
        )
