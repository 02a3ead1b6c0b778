"""Spikes as outputs of a network, for what looks at outputs only: compiled, traced, exported."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold.dynamics import Currents, Fired
from spikefold.errors import ConfigError
from spikefold.nn._copy import replaced, twin
from spikefold.nn._neuron import SpikingNeuron


class _Recorder:
    """Where the neurons of one network note what they fire."""

    def __init__(self) -> None:
        self.spikes: dict[str, list[Tensor]] = {}


class _Recorded(nn.Module):
    """Neurons in the place of which it stands, and a note of what they fire."""

    def __init__(self, inner: SpikingNeuron, name: str, recorder: _Recorder) -> None:
        super().__init__()
        self.inner = inner
        self.name = name
        self.recorder = recorder
        self.train(inner.training)

    forward = SpikingNeuron.forward
    step = SpikingNeuron.step

    def fire(self, currents: Currents, state: Tensor | None = None) -> Fired:
        fired = self.inner.fire(currents, state)
        self.recorder.spikes.setdefault(self.name, []).append(fired.spikes)
        return fired

    def is_called(self) -> bool:
        return False


class WithSpikes(nn.Module):
    """A network that gives its spikes as well; `with_spikes` makes it.

    Arguments:
        network: whose tensors it shares.

    Raises:
        ConfigError: if it has no neurons, or some that are not asked through `fire`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        recorder = _Recorder()
        shared = twin(network)
        replacements: dict[int, nn.Module] = {}
        for name, module in shared.named_modules():
            if isinstance(module, SpikingNeuron):
                if module.is_called():
                    raise ConfigError(
                        f"layer '{name}': neurons with hooks or a forward of their own cannot give "
                        "their spikes as outputs"
                    )
                replacements[id(module)] = _Recorded(module, name, recorder)
        if not replacements:
            raise ConfigError("with_spikes: the network has no spiking neurons")
        self.network = replaced(shared, replacements)
        self.recorder = recorder
        self.train(network.training)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Float[Tensor, "..."]]]:
        """The network's output, and the spikes of every layer.

        Returns:
            the output, and by name of the layer its spikes `[T, N, C, *spatial]`; of a layer that
            is called several times, one call after another along T.
        """
        self.recorder.spikes = {}
        output = self.network(*args, **kwargs)
        spikes = {
            name: calls[0] if len(calls) == 1 else torch.cat(calls)
            for name, calls in self.recorder.spikes.items()
        }
        self.recorder.spikes = {}
        return output, spikes


def with_spikes(network: nn.Module) -> WithSpikes:
    """A module that returns (output, spikes by layer), all of them real outputs.

    So that a loss may depend on spikes, and compiled, traced and exported networks can be compared
    with others. It shares parameters and buffers with the network (trained through either, moved
    with either), which is left as it is.

    Arguments:
        network: any module with spiking neurons, in the mode that counts.

    Raises:
        ConfigError: if it has no neurons, or some with hooks or a forward of their own.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4).eval()
        >>> logits, spikes = sf.with_spikes(network)(torch.rand(2, 1, 8, 8))
        >>> spikes["features.0.lif"].shape
        torch.Size([4, 2, 32, 8, 8])
    """
    return WithSpikes(network)
