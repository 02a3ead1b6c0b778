"""The layouts: how an exported graph goes over time."""

from collections.abc import Callable, Sequence

from torch import Tensor

from spikefold.dynamics import of_step
from spikefold.errors import ExportError
from spikefold.export._description import INPUT, OUTPUT
from spikefold.export._onnx_graph import Builder
from spikefold.export._onnx_layers import LAYERS
from spikefold.export._walk import Operation, Time, Value, Walk

BATCH, STEPS = "N", "T"


class Merged:
    """All steps in one graph: time is merged into the batch, `[T·N, ...]`, neurons are unrolled.

    Attributes:
        spikes: by name of the operation, `[T·N, ...]`.
    """

    def __init__(self, walk: Walk) -> None:
        self.out, self.steps = Builder(), walk.steps
        self.spikes: dict[str, str] = {}
        value = walk.nodes[0].value
        self.input = self.out.take(INPUT, *self._leading(value), *value.shape)
        result, given = _write(self, walk, self._merged(self.input, value))
        self.give(result, given, OUTPUT)

    def _leading(self, value: Value) -> list[int | str]:
        return [self.steps, BATCH] if value.time == "steps" else [BATCH]

    def _merged(self, x: str, value: Value) -> str:
        return x if value.time == "still" else self._reshaped(x, [-1, *value.shape])

    def _reshaped(self, x: str, shape: list[int]) -> str:
        return self.out.add("Reshape", [x, self.out.constant(shape, "shape")], f"{x}.reshaped")

    def give(self, x: str, value: Value, wish: str) -> None:
        """An output, with time apart."""
        if value.time == "steps":
            x = self._reshaped(x, [self.steps, -1, *value.shape])
        self.out.give(x, wish, *self._leading(value), *value.shape)

    def split(self, x: str, value: Value) -> list[str]:
        if value.time == "still" or self.steps == 1:
            return [x] * self.steps
        wishes = [f"{x}.{t}" for t in range(self.steps)]
        return self.out.add_many("Split", [x], wishes, axis=0, num_outputs=self.steps)

    def join(self, steps: Sequence[str], wish: str) -> str:
        return steps[0] if len(steps) == 1 else self.out.add("Concat", steps, wish, axis=0)

    def alike(self, x: str, time: Time, of: Time) -> str:
        return x if time == of else self.join([x] * self.steps, f"{x}.shown")

    def mean(self, x: str, value: Value, wish: str) -> str:
        if value.time == "still":
            return x
        apart = self._reshaped(x, [self.steps, -1, *value.shape])
        return self.out.add("ReduceMean", [apart, self.out.constant([0], "time")], wish, keepdims=0)

    def parameter(self, value: Tensor, wish: str) -> Callable[[int], str]:
        return lambda t: self.out.constant(of_step(value, t), wish)

    def begun(self, operation: Operation) -> str | None:
        return None

    def fired(self, operation: Operation, spikes: str, v: str) -> None:
        self.spikes[operation.name] = spikes


class OneStep:
    """One step: potentials come in and go out.

    Arguments:
        walk: of the network.
        out: a graph yet empty.
        per_step: gives a name to what differs from step to step, `[T, ...]`.

    Attributes:
        spikes: by name of the operation, `[N, ...]`.
        before, after: potentials, by name of the operation.
        result: what the network gives at this step, and its value.
    """

    def __init__(self, walk: Walk, out: Builder, per_step: Callable[[Tensor, str], str]) -> None:
        self.out, self.per_step = out, per_step
        self.spikes: dict[str, str] = {}
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        _require_mean_last(walk)
        self.input = self.out.take(INPUT, BATCH, *walk.nodes[0].value.shape)
        for operation in walk.neurons():
            wish, shape = f"{walk.labels[operation.name]}.v", operation.value.shape
            self.before[operation.name] = self.out.take(wish, BATCH, *shape)
        result, value = _write(self, walk, self.input)
        self.result = self.out.give(result, OUTPUT, BATCH, *value.shape)
        for operation in walk.neurons():
            wish, shape = f"{walk.labels[operation.name]}.v.next", operation.value.shape
            v = self.after[operation.name]
            self.after[operation.name] = self.out.give(v, wish, BATCH, *shape)

    def split(self, x: str, value: Value) -> list[str]:
        return [x]

    def join(self, steps: Sequence[str], wish: str) -> str:
        return steps[0]

    def alike(self, x: str, time: Time, of: Time) -> str:
        return x

    def mean(self, x: str, value: Value, wish: str) -> str:
        return x

    def parameter(self, value: Tensor, wish: str) -> Callable[[int], str]:
        if len(value) == 1:
            return lambda _: self.out.constant(value[0], wish)
        name = self.per_step(value, wish)
        return lambda _: name

    def begun(self, operation: Operation) -> str | None:
        return self.before[operation.name]

    def fired(self, operation: Operation, spikes: str, v: str) -> None:
        self.spikes[operation.name], self.after[operation.name] = spikes, v


def _write(over: Merged | OneStep, walk: Walk, x: str) -> tuple[str, Value]:
    """All operations; the name of what the last gives, and its value."""
    first, *others, last = walk.nodes
    results = {first.name: x}
    for operation in others:
        inputs = [(results[name], walk[name].value) for name in operation.inputs]
        results[operation.name] = LAYERS[operation.kind](over, operation, inputs)
    return results[last.inputs[0]], last.value


def _require_mean_last(walk: Walk) -> None:
    for operation in walk.nodes:
        if operation.kind == "mean over time" and any(
            user.kind != "output" for user in walk.users(operation)
        ):
            raise ExportError(
                f"export: {operation.node.what}: something follows the mean over time, so a step "
                "has no result of its own: layout='merged' can say it"
            )
