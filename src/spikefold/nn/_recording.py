"""Spikes as outputs of a network, for tools that see outputs only: compiled, traced, exported."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold.errors import ConfigError
from spikefold.nn._copy import twin
from spikefold.nn._neuron import SpikingNeuron
from spikefold.nn._observe import Call, Recorder, observing


class WithSpikes(nn.Module):
    """A network that gives its spikes as well; `with_spikes` makes it.

    Arguments:
        network: whose tensors it shares.

    Raises:
        ConfigError: if it has no neurons, or some that are not called through `fire`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.recorder = Recorder()
        names = []

        def record(name: str, made: nn.Module) -> None:
            if not isinstance(made, SpikingNeuron):
                return
            if made.is_called() or type(made).step is not SpikingNeuron.step:
                raise ConfigError(
                    f"layer '{name}': neurons with hooks, or a forward or step of their own, "
                    "cannot give their spikes as outputs"
                )
            names.append(name)
            made.__dict__["recording"] = (self.recorder, name)

        self.network = twin(network, record)
        if not names:
            raise ConfigError("with_spikes: the network has no spiking neurons")
        self.train(network.training)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Float[Tensor, "..."]]]:
        """The network's output, and the spikes of every layer.

        Returns:
            the output, and by name of the layer its spikes `[T, N, C, *spatial]`; of a layer that
            is called several times, one call after another along T.
        """
        fired: dict[str, list[Tensor]] = {}
        if torch.compiler.is_dynamo_compiling():
            self.recorder.spikes = fired
            output = self.network(*args, **kwargs)
            self.recorder.spikes = {}
        else:

            def see(name: str, call: Call) -> None:
                fired.setdefault(name, []).append(call.fired.spikes)

            with observing(self.network, see):
                output = self.network(*args, **kwargs)
        spikes = {
            name: calls[0] if len(calls) == 1 else torch.cat(calls) for name, calls in fired.items()
        }
        return output, spikes


def with_spikes(network: nn.Module) -> WithSpikes:
    """A module that returns (output, spikes by layer), all of them real outputs.

    So that a loss may depend on spikes, and compiled, traced and exported networks can be compared
    with others. It shares parameters and buffers with the network (trained through either, moved
    with either), which is not changed. Fold first, then ask for spikes.

    Arguments:
        network: any module with spiking neurons, in the mode that counts.

    Raises:
        ConfigError: if it has no neurons, or some with hooks, or a forward or step of their own.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4).eval()
        >>> logits, spikes = sf.with_spikes(network)(torch.rand(2, 1, 8, 8))
        >>> spikes["features.0.lif"].shape
        torch.Size([4, 2, 32, 8, 8])
    """
    return WithSpikes(network)
