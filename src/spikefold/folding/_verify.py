"""Verification: two networks, spike by spike, on real data."""

import math
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spikefold.errors import FoldError, ShapeError
from spikefold.folding._batches import Batch, inputs_and_labels, require_batches
from spikefold.nn import Call, FoldedLIF, SpikingNeuron, observing, twin

ModelT = TypeVar("ModelT", bound=nn.Module)


@dataclass
class LayerRecord:
    """One layer's neurons in both networks.

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
        max_output_difference: largest absolute difference of an output (logit); infinite where an
            output is finite in one network only.
        not_finite: outputs that are NaN or infinite in the first and in the second network.
        labelled: samples that came with a label.
        correct: of these, how many the first and the second network got right.
    """

    layers: dict[str, LayerRecord] = field(default_factory=dict)
    samples: int = 0
    max_output_difference: float = 0.0
    not_finite: tuple[int, int] = (0, 0)
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

    def __str__(self) -> str:
        right = "" if self.accuracy is None else "; right: {:.2%} and {:.2%}".format(*self.accuracy)
        return (
            f"{self.mismatches:,} of {self.spikes:,} decisions differ in {self.samples:,} samples, "
            f"outputs by at most {self.max_output_difference:g}{right}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON record, which has no infinity: such a difference is a string."""
        layers = {
            name: {**asdict(layer), "firing_rate": layer.firing_rate}
            for name, layer in self.layers.items()
        }
        largest = self.max_output_difference
        return {
            "samples": self.samples,
            "spikes": self.spikes,
            "mismatches": self.mismatches,
            "mismatch_rate": self.mismatch_rate,
            "max_output_difference": largest if math.isfinite(largest) else str(largest),
            "not_finite": list(self.not_finite),
            "accuracy": self.accuracy,
            "layers": layers,
        }


@contextmanager
def evaluation(model: ModelT) -> Iterator[ModelT]:
    """A twin of the network in evaluation mode, without gradients inside.

    The network itself is not touched: two evaluations at once, or one beside a training, do not
    meet.
    """
    with torch.no_grad():
        yield twin(model).eval()


class _Comparison:
    """Two networks on the same batches, and how they compare."""

    def __init__(self, model: nn.Module, folded: nn.Module, record: Verification) -> None:
        self.networks = (model, folded)
        self.record = record
        self.decisions: tuple[Counter[str], Counter[str]] = (Counter(), Counter())

    def add(self, batch: Any, arguments: dict[str, int], per_step: bool) -> None:
        """Run both networks on a batch; note decisions, outputs and what they got right."""
        x, labels = inputs_and_labels(batch)
        results = self.run(x, arguments)
        outputs = tuple(dict(_named(result)) for result in results)
        self.compare_outputs(*outputs)
        if not outputs[0]:
            raise ShapeError(f"the network returns a {type(results[0]).__name__}, not a tensor")
        first = next(iter(outputs[0].values()))
        if first.ndim < (2 if per_step else 1):
            raise ShapeError(f"outputs {list(first.shape)} have no batch dimension")
        self.record.samples += first.shape[1 if per_step else 0]
        if labels is not None:
            _count_correct(self.record, outputs, labels.to(first.device), per_step)

    def run(self, x: Tensor, arguments: dict[str, int]) -> tuple[Any, Any]:
        """Outputs of both; every call of a layer in one is compared with the same in the other."""
        fired: dict[str, deque[Tensor]] = {}

        def keep(name: str, call: Call) -> None:
            spikes = call.fired.spikes != 0
            self.decisions[0][name] += spikes.numel()
            fired.setdefault(name, deque()).append(spikes)

        def compare(name: str, call: Call) -> None:
            spikes = call.fired.spikes != 0
            self.decisions[1][name] += spikes.numel()
            if not fired.get(name):
                raise FoldError(
                    f"layer '{name}' fires more often in the second network than in the first"
                )
            self._compare(name, fired[name].popleft(), spikes)

        with observing(self.networks[0], keep):
            output = self.networks[0](x, **arguments)
        # in the order in which the first network's layers fire
        for name in fired:
            self.record.layers.setdefault(name, LayerRecord())
        with observing(self.networks[1], compare):
            other = self.networks[1](x, **arguments)
        left = [name for name, calls in fired.items() if calls]
        if left:
            raise FoldError(
                f"layer '{left[0]}' fires less often in the second network than in the first"
            )
        return output, other

    def _compare(self, name: str, one: Tensor, other: Tensor) -> None:
        if one.shape != other.shape:
            raise FoldError(
                f"layer '{name}': spikes {list(one.shape)} in one network, {list(other.shape)} in "
                "the other"
            )
        layer = self.record.layers[name]
        layer.compared += one.numel()
        layer.mismatches += int((one != other).sum())
        layer.fired += int(one.sum())

    def compare_outputs(self, outputs: dict[str, Tensor], others: dict[str, Tensor]) -> None:
        """Differences, and what is not finite."""
        shapes, other_shapes = (
            {name: list(value.shape) for name, value in named.items()}
            for named in (outputs, others)
        )
        if shapes != other_shapes:
            raise FoldError(f"the networks differ in their outputs: {shapes} and {other_shapes}")
        record = self.record
        for one, other in zip(outputs.values(), others.values(), strict=True):
            bad, other_bad = ~torch.isfinite(one), ~torch.isfinite(other)
            first, second = record.not_finite
            record.not_finite = (first + int(bad.sum()), second + int(other_bad.sum()))
            wide = torch.complex128 if one.is_complex() else torch.float64
            one, other = one.to(wide), other.to(wide)
            difference = torch.where(bad | other_bad, torch.inf, (one - other).abs())
            same = (one == other) | (one.isnan() & other.isnan())
            difference = torch.where(same, 0.0, difference)
            if difference.numel():
                record.max_output_difference = max(
                    record.max_output_difference, difference.max().item()
                )

    def require_decisions(self) -> None:
        """Refuse a proof that compared nothing of a layer that was folded.

        Raises:
            FoldError: if a folded layer made no decision, or there was none at all.
        """
        for network, decisions in zip(self.networks, self.decisions, strict=True):
            idle = [
                f"'{name}'"
                for name, module in network.named_modules()
                if isinstance(module, FoldedLIF) and not decisions[name]
            ]
            if idle:
                raise FoldError(
                    f"nothing is proved of layer {', '.join(idle)}: its neurons are folded but "
                    "made no decision that could be seen (unused, compiled, or run elsewhere)"
                )
        if not self.record.spikes:
            raise FoldError("nothing is proved: no decision of any neuron was seen")


def verify(
    model: nn.Module,
    folded: nn.Module,
    batches: Iterable[Batch],
    *,
    steps: int | None = None,
    per_step: bool = False,
    on_batch: Callable[[], None] = lambda: None,
) -> Verification:
    """Run two networks on the same data and compare every decision of every neuron.

    What runs is what runs without being watched, kernels included. The networks themselves are
    not touched, whatever mode they are in.

    Arguments:
        model: the network before the transform (fold, fusion).
        folded: the network after it; it has the same layers of neurons.
        batches: inputs on the networks' device, or pairs of such inputs and labels `[N]`; of a
            generator, one is in memory at a time.
        steps: handed to both networks' `forward` if given (images need it where the network
            does not know its own).
        per_step: whether outputs are `[T, N, K]`, one a time step; classes then are those of
            their mean over time. Else they are `[N, K]`.
        on_batch: called after each batch, for progress.

    Returns:
        per layer: decisions compared, decisions that differ, firing rate; the output difference;
        and with labels both accuracies. Outputs may be a tensor, or a tuple or dict of tensors;
        classes are those of the first, or of "logits".

    Raises:
        FoldError: if the networks have different layers, there is no batch, a folded layer made no
            decision, the networks are of two dtypes, or a network is compiled, traced or exported.
        ShapeError: if labels or outputs do not fit.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.models.small(in_channels=1, steps=4)
        >>> record = sf.verify(network, sf.fold(network), [torch.rand(8, 1, 8, 8)])
        >>> record.mismatches, record.max_output_difference
        (0, 0.0)
    """
    require_batches(batches)
    for network in (model, folded):
        _require_eager(network)
    odd = _neurons(model) ^ _neurons(folded)
    if odd:
        raise FoldError(f"the networks differ in their layers: {', '.join(sorted(odd))}")
    others = _dtypes(folded) - _dtypes(model)
    if others:
        raise FoldError(
            f"the second network has weights of {others.pop()}, the first has not: convert first, "
            "then transform"
        )
    record = Verification()
    arguments = {} if steps is None else {"steps": steps}
    with evaluation(model) as one, evaluation(folded) as other, _eagerly():
        comparison = _Comparison(one, other, record)
        for batch in batches:
            comparison.add(batch, arguments, per_step)
            # Otherwise it would stay in memory next to the following one.
            del batch
            on_batch()
        if not record.samples:
            raise FoldError("verify got no batch: there is nothing to compare")
        comparison.require_decisions()
    return record


@contextmanager
def _eagerly() -> Iterator[None]:
    """Functions that torch.compile made run as they were written, where every decision is seen."""
    if "torch._dynamo" in sys.modules:
        with torch.compiler.set_stance("force_eager"):
            yield
        return
    # Nothing was compiled yet: no stance is needed, and setting one would import the compiler.
    yield
    if "torch._dynamo" in sys.modules:
        raise FoldError(
            "a part of the networks was compiled while it was verified, and could not be seen: run "
            "them once, then verify"
        )


def _dtypes(network: nn.Module) -> set[torch.dtype]:
    """Of weights; vectors may be kept in float32 beside them."""
    return {parameter.dtype for parameter in network.parameters() if parameter.ndim > 1}


def _neurons(network: nn.Module) -> set[str]:
    return {name for name, part in network.named_modules() if isinstance(part, SpikingNeuron)}


def _require_eager(network: nn.Module) -> None:
    """Refuse networks that run compiled or exported code, in which decisions cannot be seen."""
    if not isinstance(network, nn.Module):
        raise FoldError(f"verify takes networks, got {type(network).__name__}")
    for name, module in network.named_modules():
        kind = None
        neurons = any(isinstance(part, SpikingNeuron) for part in module.modules())
        if ("_orig_mod" in module._modules or module._compiled_call_impl) and neurons:
            kind = "compiled: verify the module you compiled"
        elif isinstance(module, torch.jit.ScriptModule) and "spikefold::" in _graph(module):
            kind = "traced or scripted: verify the module you traced"
        elif isinstance(module, torch.fx.GraphModule) and "spikefold" in _graph(module):
            kind = "exported: verify the module you exported"
        if kind is not None:
            where = f"layer '{name}'" if name else "the network"
            raise FoldError(
                f"{where} ({type(module).__name__}) is {kind}, or compare outputs and spikes of "
                "sf.with_spikes"
            )


def _graph(module: nn.Module) -> str:
    """What a module that was traced or exported computes; nothing where neurons can be seen."""
    if any(isinstance(part, SpikingNeuron) for part in module.modules()):
        return ""
    return str(getattr(module, "inlined_graph", "") or getattr(module, "graph", ""))


def _named(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of an output, by their place in it."""
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, dict):
        for key in output:
            yield from _named(output[key], f"{name}.{key}" if name else str(key))
    elif isinstance(output, tuple | list):
        for place, part in enumerate(output):
            yield from _named(part, f"{name}.{place}" if name else str(place))


def _count_correct(
    record: Verification, outputs: tuple[dict[str, Tensor], ...], labels: Tensor, per_step: bool
) -> None:
    """Add a batch to the accuracies."""
    logits = [output.get("logits", next(iter(output.values()))) for output in outputs]
    if per_step:
        logits = [values.mean(0) for values in logits if values.ndim]
    shape = list(logits[0].shape)
    if len(shape) != 2:
        told = "[T, N, K]" if per_step else "[N, K]; per_step=True takes [T, N, K]"
        raise ShapeError(f"labels need outputs {told}; got {list(logits[0].shape)}")
    if list(labels.shape) != shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ShapeError(
            f"labels must be {shape[0]} whole numbers, one a sample, got {list(labels.shape)} of "
            f"{labels.dtype}"
        )
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < shape[1]):
        raise ShapeError(
            f"labels lie between {int(labels.min())} and {int(labels.max())}, but the network "
            f"tells {shape[1]} classes apart"
        )
    record.labelled += len(labels)
    right = [int((values.argmax(1) == labels).sum()) for values in logits]
    record.correct = (record.correct[0] + right[0], record.correct[1] + right[1])
