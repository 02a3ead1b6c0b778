"""The proof that travels with an exported file: it and the network side by side on data."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from inspect import signature
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.errors import ExportError
from spikefold.export._bound import flips
from spikefold.export._description import Description
from spikefold.export._needs import needed
from spikefold.export._nir_file import NIRFile, is_nir
from spikefold.export._runtimes import RUNTIMES, Runtime, find_runtime, require_installed
from spikefold.export._torch_file import TORCH, TorchFile, is_archive
from spikefold.export._walk import Operation, Walk, walk
from spikefold.folding import Batch, evaluation, inputs_and_labels, require_batches
from spikefold.nn import Call, copied, observing

# what is compared: output, spikes of all calls of neurons `[T, N, ...]`, output beside these spikes
Other = Callable[[Tensor], tuple[Tensor, list[Tensor], Tensor]]
AT_ONCE = 16  # samples whose bounds are in memory at a time: of every layer, in float64


@dataclass
class Differences:
    """How another program's decisions differ from the network's.

    Attributes:
        decisions: of a neuron at a time step, compared.
        differ: decisions that are others.
        first: of these, the first flips: nothing that reaches the neuron differs.
        beyond: of the first flips, those that rounding cannot explain.
        largest: distance of a first flip's potential from its threshold, as a share of the bound.
        samples: with any decision that differs.
        classes: samples of another class.
        unexplained: of these, samples without a first flip.
        not_finite: outputs that are NaN or infinite in the other program only.
        unseen: samples whose output is another, be it in the last bit, than the one beside the
            spikes: making spikes outputs keeps a runtime from joining some nodes.
    """

    decisions: int = 0
    differ: int = 0
    first: int = 0
    beyond: int = 0
    largest: float = 0.0
    samples: int = 0
    classes: int = 0
    unexplained: int = 0
    not_finite: int = 0
    unseen: int = 0

    @property
    def cascades(self) -> int:
        """Decisions that differ because others did before."""
        return self.differ - self.first

    @property
    def passed(self) -> bool:
        """Whether rounding explains all."""
        return self.decisions > 0 and not (self.beyond or self.unexplained or self.not_finite)


@dataclass
class Check:
    """The record of `check`.

    Attributes:
        runtime: what ran the file; "" if a function did.
        samples: run.
        file: how the file's decisions differ from the network's.
        control: how the network's own do when its convolutions and linear layers sum in another
            order (channels last, and backwards).
        layers: first flips of the file, by path of the neurons; of those that have any.
        source: SHA-256 of the network's file that was exported, where it is known.
    """

    runtime: str = ""
    samples: int = 0
    file: Differences = field(default_factory=Differences)
    control: Differences = field(default_factory=Differences)
    layers: dict[str, int] = field(default_factory=dict)
    source: str = ""

    @property
    def passed(self) -> bool:
        """Whether every first flip lies within what rounding explains, and classes differ only in
        samples that have one.
        """
        return self.samples > 0 and self.file.passed

    def __str__(self) -> str:
        file = self.file
        return (
            f"{'passed' if self.passed else 'FAILED'}: {file.differ:,} of {file.decisions:,} "
            f"decisions differ in {file.samples:,} of {self.samples:,} samples; {file.first:,} "
            f"first flips, {file.beyond:,} beyond rounding; {file.classes:,} classes differ"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON record."""
        file, control = (
            {**asdict(d), "cascades": d.cascades, "passed": d.passed}
            for d in (self.file, self.control)
        )
        return {
            "passed": self.passed,
            "runtime": self.runtime,
            "samples": self.samples,
            "file": file,
            "control": control,
            "layers": dict(self.layers),
            "source": self.source,
        }


def check(
    network: nn.Module,
    path: str | Path,
    batches: Iterable[Batch],
    *,
    runtime: str | Runtime | None = None,
    on_batch: Callable[[], None] = lambda: None,
) -> Check:
    """Run an exported file (ONNX, torch, NIR) and its network side by side; explain what differs.

    Runtimes sum convolutions in other orders, so potentials at a threshold may fall on its other
    side, and one such tie sets off a cascade. So counted are first flips, where nothing that
    reaches the neuron differs; each must lie within

        |u - theta| <= k · eps · (sum |w x| + |b| + |shortcut| + |decay v|),   eps = 2⁻²³,

    where k is the number of roundings that a term passes through: about the number of inputs that
    are not zero (see `spikefold.export._bound`). Beside it stands a control: the network against
    itself, summed in another order.

    Arguments:
        network: that was exported, on the CPU; not changed.
        path: of the file.
        batches: inputs as the network takes them, or pairs of such and labels, which do not count.
        runtime: "onnxruntime" (default), "openvino" (in float32), "reference" (onnx's own, slow),
            or a function from a model's bytes to a function from inputs to outputs by name. Of a
            NIR file the library that it was written for (default), or "spikefold"; a torch program
            is run by torch, its operators one by one.
        on_batch: called after each batch, for progress.

    Returns:
        the record; `passed` tells whether rounding explains all differences.

    Raises:
        ExportError: if the file is none of spikefold's, is damaged, is of another network, if there
            is no sample or are no neurons, or if the runtime is not installed or refuses the file.

    Example:
        >>> import tempfile, torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4, image_size=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sf.to_onnx(network, f"{folder}/network.onnx")
        ...     record = sf.check(network, f"{folder}/network.onnx", [torch.rand(8, 1, 8, 8)])
        >>> record.passed, record.file.decisions
        (True, 172032)
    """
    require_batches(batches)
    description, by_file, name = _opened(Path(path), runtime)
    record = Check(name, source=description.source)
    if not description.neurons:
        raise ExportError(f"{path}: has no neurons, so nothing would be proved")
    steps = description.steps
    arguments = {"steps": steps} if "steps" in signature(network.forward).parameters else {}
    by_itself = _otherwise_summed(network, arguments)
    paths = [neurons for neurons, _ in description.neurons]
    walked: Walk | None = None
    for batch in batches:
        x, _ = inputs_and_labels(batch)
        if walked is None:
            image = x.ndim == 1 + len(description.shape)
            walked = walk(network, x, steps if image else None)
            _require_same(Path(path), paths, walked)
        beside = _Beside(_run(network, x, arguments), walked, x)
        record.samples += beside.compare(by_file(x), record.file, record.layers)
        beside.compare(by_itself(x), record.control, {})
        on_batch()
    if not record.samples:
        raise ExportError("check got no sample: there is nothing to compare")
    return record


def describe(path: str | Path) -> Description:
    """What an exported file (ONNX, torch, NIR) says about itself.

    Arguments:
        path: of the file.

    Raises:
        ExportError: if it is none of spikefold's, or damaged.
        FileFormatError: if it is a damaged NIR file.
    """
    return _file(Path(path)).description


def _file(path: Path) -> Any:
    if is_archive(path):
        return TorchFile(path)
    if is_nir(path):
        return NIRFile(path)
    needed("onnx", "check", "export")
    # needs onnx itself
    from spikefold.export._onnx_file import OnnxFile

    return OnnxFile(path)


def require_runtime(path: str | Path, runtime: str | None) -> None:
    """Refuse a runtime that cannot run a file, or is not installed, before data are read for it.

    Arguments:
        path: of an exported file.
        runtime: as for `check`.

    Raises:
        ExportError: if it cannot.
    """
    _, _, name = _opened(Path(path), runtime)
    if name in RUNTIMES:
        require_installed(name)


def _opened(path: Path, runtime: str | Runtime | None) -> tuple[Description, Other, str]:
    """What a file says about itself, what runs it, and that one's name."""
    file = _file(path)
    run: Any
    if isinstance(file, TorchFile):
        if runtime not in (None, TORCH):
            raise ExportError(f"{path}: a torch program is run by torch: leave out the runtime")
        return file.description, _other(file.run, file.watch), TORCH
    if isinstance(file, NIRFile):
        if callable(runtime):
            raise ExportError(f"{path}: a NIR file is run by the library it was written for")
        run, name = file.runtime(runtime), file.target if runtime is None else runtime
    else:
        chosen = "onnxruntime" if runtime is None else runtime
        run, name = find_runtime(chosen), chosen if isinstance(chosen, str) else ""
    return file.description, _other(file.run_by(run), file.watched_by(run)), name


def _other(
    shipped: Callable[[Tensor], Tensor], watched: Callable[[Tensor], tuple[Tensor, list[Tensor]]]
) -> Other:
    def run(x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        beside_spikes, spikes = watched(x)
        return shipped(x), spikes, beside_spikes

    return run


def _require_same(path: Path, paths: list[str], walked: Walk) -> None:
    ours = [neurons.node.path for neurons in walked.neurons()]
    if paths != ours:
        other = next((a or b for a, b in zip_longest(paths, ours) if a != b), "")
        raise ExportError(f"{path}: exported from another network: '{other}' is not in both")


def _run(network: nn.Module, x: Tensor, arguments: dict[str, int]) -> tuple[Tensor, list[Call]]:
    """What the network gives, and all calls of its neurons."""
    calls: list[Call] = []
    with evaluation(network) as running, observing(running, lambda _, call: calls.append(call)):
        return running(x, **arguments), calls


def _otherwise_summed(network: nn.Module, arguments: dict[str, int]) -> Other:
    """The network itself, but for the order in which its layers sum."""
    other = copied(network)
    for module in other.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Linear):
            module.weight.data = module.weight.data.flip(-1)
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].flip(-1),))

    def run(x: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        output, calls = _run(other, x, arguments)
        return output, [call.fired.spikes for call in calls], output

    return run


class _Beside:
    """The network's run on a batch, beside which another program's is put.

    Arguments:
        run: what the network gave, and the calls of its neurons.
        walked: of the network.
        x: the batch.
    """

    def __init__(self, run: tuple[Tensor, list[Call]], walked: Walk, x: Tensor) -> None:
        self.output, calls = run
        self.walked, self.x = walked, x
        self.calls = {o.name: call for o, call in zip(walked.neurons(), calls, strict=True)}

    def compare(
        self, other: tuple[Tensor, list[Tensor], Tensor], found: Differences, layers: dict[str, int]
    ) -> int:
        """Add the differences to those that were found; the number of samples.

        Arguments:
            other: as `Other` gives it.
            found: so far.
            layers: first flips, by path of the neurons, so far.
        """
        output, spikes, beside_spikes = other
        differ = {
            name: _differ(self.walked[name], call.fired.spikes, theirs)
            for (name, call), theirs in zip(self.calls.items(), spikes, strict=True)
        }
        by_sample = torch.stack([d.transpose(0, 1).flatten(1).any(1) for d in differ.values()])
        some = by_sample.any(0)
        found.decisions += sum(d.numel() for d in differ.values())
        found.differ += sum(int(d.sum()) for d in differ.values())
        found.samples += int(some.sum())
        explained = torch.zeros_like(some)
        places = some.nonzero().flatten()
        for start in range(0, len(places), AT_ONCE):
            chosen = places[start : start + AT_ONCE]
            explained[chosen] = self._first(chosen, differ, found, layers)
        self._outputs(output, beside_spikes, explained, found)
        return len(some)

    def _first(
        self, some: Tensor, differ: dict[str, Tensor], found: Differences, layers: dict[str, int]
    ) -> Tensor:
        """Count first flips in some of the samples; which of these have one."""
        fired = {name: call.fired.spikes[:, some] != 0 for name, call in self.calls.items()}
        still = self.walked.nodes[0].value.time == "still"
        x = self.x[some] if still else self.x[:, some]
        seen = flips(self.walked, x, fired, {name: d[:, some] for name, d in differ.items()})
        have = torch.zeros(len(some), dtype=torch.bool)
        for name, (first, bound) in seen.items():
            count = int(first.sum())
            if not count:
                continue
            share = (_distance(self.calls[name], some) / bound)[first]
            path = self.walked[name].node.path
            layers[path] = layers.get(path, 0) + count
            found.first += count
            found.beyond += int((~(share <= 1)).sum())
            found.largest = max(found.largest, share.max().item())
            have |= first.transpose(0, 1).flatten(1).any(1)
        return have

    def _outputs(
        self, output: Tensor, beside_spikes: Tensor, explained: Tensor, found: Differences
    ) -> None:
        ours, theirs, seen = (self._per_sample(y) for y in (self.output, output, beside_spikes))
        other = ours.argmax(1) != theirs.argmax(1)
        found.classes += int(other.sum())
        found.unexplained += int((other & ~explained).sum())
        found.not_finite += int((ours.isfinite() & ~theirs.isfinite()).sum())
        found.unseen += int((theirs != seen).any(1).sum())

    def _per_sample(self, output: Tensor) -> Tensor:
        """`[N, K]`, the mean over time if there is time."""
        timed = self.walked.nodes[-1].value.time == "steps"
        return (output.mean(0) if timed else output).flatten(1)


def _differ(neurons: Operation, ours: Tensor, theirs: Tensor) -> Tensor:
    # a NIR file has its samples in shapes of its own, in the same order
    if ours.shape[:2] != theirs.shape[:2] or ours.numel() != theirs.numel():
        raise ExportError(
            f"check: '{neurons.node.path}' has spikes {list(ours.shape)}, and {list(theirs.shape)} "
            "in the file"
        )
    return ours != theirs.reshape(ours.shape)


def _distance(call: Call, some: Tensor) -> Tensor:
    """Of the potentials from their thresholds, `[T, N, ...]` of some samples."""
    currents, neuron = call.currents, call.neuron
    shortcut = None if currents.shortcut is None else currents.shortcut[:, some]
    chosen = currents._replace(input=currents.input[:, some], shortcut=shortcut)
    x, _ = dynamics.compute(chosen)
    spikes, condition, constants = call.fired.spikes[:, some], neuron.condition(), neuron.constants
    learnt = neuron.decay()
    decay = constants.decay if learnt is None else learnt
    v, distances = torch.zeros_like(x[0]), []
    for t, (current, s) in enumerate(zip(x, spikes, strict=True)):
        u = dynamics.charge(v, current, decay)
        h, _ = condition.potential(u, t)
        distances.append((h.double() - condition.limit(constants.threshold, t, u.ndim)).abs())
        v = dynamics.reset(u, s, constants)
    return torch.stack(distances)
