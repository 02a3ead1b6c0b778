"""Verification: two networks, spike by spike, on real data."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from spikefold.errors import FoldError
from spikefold.nn import SpikingNeuron

Batch = Tensor | tuple[Tensor, Tensor]


@dataclass
class LayerRecord:
    """What one layer of neurons did in both networks.

    Attributes:
        compared: pairs of a neuron and a time step compared, over all samples.
        mismatches: how many of them fired in one network only.
        fired: how many fired in the first network.
    """

    compared: int = 0
    mismatches: int = 0
    fired: int = 0

    @property
    def firing_rate(self) -> float:
        """Spikes per neuron and time step, in the first network."""
        return self.fired / self.compared if self.compared else 0.0


@dataclass
class Verification:
    """The record of `verify`.

    Attributes:
        layers: one record a layer of neurons, by name, in the order in which they fire.
        samples: how many samples were run.
        max_output_difference: largest absolute difference of an output (logit).
        labelled: samples that came with a label.
        correct: of these, how many the first and the second network got right.
    """

    layers: dict[str, LayerRecord] = field(default_factory=dict)
    samples: int = 0
    max_output_difference: float = 0.0
    labelled: int = 0
    correct: tuple[int, int] = (0, 0)

    @property
    def spikes(self) -> int:
        """Decisions (fire or not) compared, over all layers."""
        return sum(layer.compared for layer in self.layers.values())

    @property
    def mismatches(self) -> int:
        """Decisions that differ, over all layers."""
        return sum(layer.mismatches for layer in self.layers.values())

    @property
    def mismatch_rate(self) -> float:
        """Mismatches / spikes."""
        return self.mismatches / self.spikes if self.spikes else 0.0

    @property
    def accuracy(self) -> tuple[float, float] | None:
        """Accuracy of the first and the second network; None if no batch had labels."""
        if self.labelled == 0:
            return None
        return self.correct[0] / self.labelled, self.correct[1] / self.labelled

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON record."""
        layers = {
            name: {**asdict(layer), "firing_rate": layer.firing_rate}
            for name, layer in self.layers.items()
        }
        return {
            "samples": self.samples,
            "spikes": self.spikes,
            "mismatches": self.mismatches,
            "mismatch_rate": self.mismatch_rate,
            "max_output_difference": self.max_output_difference,
            "accuracy": self.accuracy,
            "layers": layers,
        }


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; every module's own mode restored after."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def observing(
    model: nn.Module, see: Callable[[str, SpikingNeuron, Tensor, Tensor], None]
) -> Iterator[None]:
    """Call `see(name, neuron, currents, spikes)` for every layer of neurons that runs inside."""

    def hook(name: str) -> Callable[..., None]:
        def call(neuron: SpikingNeuron, inputs: tuple[Tensor, ...], spikes: Tensor) -> None:
            see(name, neuron, inputs[0], spikes)

        return call

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, SpikingNeuron)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _run(
    model: nn.Module, x: Tensor, arguments: dict[str, int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and the spikes of every layer, as booleans."""
    spikes: dict[str, Tensor] = {}

    def see(name: str, neuron: SpikingNeuron, currents: Tensor, fired: Tensor) -> None:
        spikes[name] = fired != 0

    with observing(model, see):
        return model(x, **arguments), spikes


def verify(
    model: nn.Module,
    folded: nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Verification:
    """Run two networks on the same data and compare every decision of every neuron.

    Arguments:
        model: the network before the transform (fold, fusion).
        folded: the network after it; it has the same layers of neurons.
        batches: inputs, or pairs of inputs and labels `[N]`, on the networks' device.
        steps: handed to both networks' `forward` if given (images need it where the network
            does not know its own).
        on_batch: called after each batch, for progress.

    Returns:
        per layer: decisions compared, decisions that differ, firing rate; the output difference;
        and with labels both accuracies.

    Raises:
        FoldError: if the networks have different layers, or there is no batch.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4)
        >>> record = sf.verify(network, sf.fold(network), [torch.rand(8, 1, 8, 8)])
        >>> record.mismatches, record.max_output_difference
        (0, 0.0)
    """
    record = Verification()
    arguments = {} if steps is None else {"steps": steps}
    with evaluation(model), evaluation(folded):
        for batch in batches:
            x, labels = (batch, None) if isinstance(batch, Tensor) else batch
            output, spikes = _run(model, x, arguments)
            folded_output, folded_spikes = _run(folded, x, arguments)
            if spikes.keys() != folded_spikes.keys():
                odd = sorted(spikes.keys() ^ folded_spikes.keys())
                raise FoldError(f"the networks differ in their layers of neurons: {', '.join(odd)}")
            for name, fired in spikes.items():
                if fired.shape != folded_spikes[name].shape:
                    raise FoldError(
                        f"layer '{name}': spikes {list(fired.shape)} in one network, "
                        f"{list(folded_spikes[name].shape)} in the other"
                    )
                layer = record.layers.setdefault(name, LayerRecord())
                layer.compared += fired.numel()
                layer.mismatches += int((fired != folded_spikes[name]).sum())
                layer.fired += int(fired.sum())
            if output.numel():
                difference = (output.double() - folded_output.double()).abs().max().item()
                record.max_output_difference = max(record.max_output_difference, difference)
            record.samples += len(output)
            if labels is not None:
                record.labelled += len(labels)
                record.correct = (
                    record.correct[0] + int((output.argmax(1) == labels).sum()),
                    record.correct[1] + int((folded_output.argmax(1) == labels).sum()),
                )
            on_batch()
    if not record.samples:
        raise FoldError("verify got no batch: there is nothing to compare")
    return record
