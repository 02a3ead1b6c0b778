"""ONNX models of a walk, one a layout, by hand: no tracing, any batch, small files."""

from collections.abc import Sequence

import onnx
from onnx import helper
from torch import Tensor

from spikefold.export._description import INPUT, KEY, OUTPUT, Description, written
from spikefold.export._onnx_graph import Builder
from spikefold.export._onnx_time import BATCH, STEPS, Merged, OneStep
from spikefold.export._walk import Operation, Walk

OPSET, IR = 18, 8  # Split with num_outputs, and axes as inputs, came with 18
TIME = "t"  # the input that says which step it is, where steps differ


def merged(walk: Walk, spikes: Sequence[Operation]) -> tuple[Builder, dict[str, str]]:
    """All steps in one graph.

    Arguments:
        walk: of the network.
        spikes: calls of neurons whose spikes are outputs.

    Returns:
        the graph; the names of all spikes in it, by operation.
    """
    layout = Merged(walk)
    for operation in spikes:
        layout.give(layout.spikes[operation.name], operation.value, walk.labels[operation.name])
    return layout.out, layout.spikes


def step(walk: Walk, spikes: Sequence[Operation]) -> tuple[Builder, dict[str, str]]:
    """One step of a stream; arguments and results as for `merged`."""
    out = Builder()

    def of_now(value: Tensor, wish: str) -> str:
        if all(known.name != TIME for known in out.inputs):
            out.take(TIME, whole=True)
        return out.add("Gather", [out.constant(value, wish), TIME], f"{wish}.now", axis=0)

    one = OneStep(walk, out, of_now)
    for operation in spikes:
        shape = operation.value.shape
        out.give(one.spikes[operation.name], walk.labels[operation.name], BATCH, *shape)
    return out, one.spikes


def scan(walk: Walk, spikes: Sequence[Operation]) -> tuple[Builder, dict[str, str]]:
    """A loop over frames of any T; arguments and results as for `merged`.

    Parameters of each time step are scanned as the frames are, and fix T.
    """
    out, body = Builder(), Builder("step/", "step.")
    scanned: list[str] = []

    def each(value: Tensor, wish: str) -> str:
        scanned.append(out.constant(value, wish))
        return body.take(wish, *value.shape[1:])

    one = OneStep(walk, body, each)
    given = [
        body.give(one.spikes[s.name], walk.labels[s.name], BATCH, *s.value.shape) for s in spikes
    ]
    steps = walk.steps if scanned else STEPS
    x = out.take(INPUT, steps, BATCH, *walk.nodes[0].value.shape)
    zeros = [_zeros(out, x, operation) for operation in walk.neurons()]
    _states_first(one)
    results = out.add_many(
        "Scan",
        [*zeros, x, *scanned],
        [f"{name}.all" for name in (*one.after.values(), one.result, *given)],
        body=body.graph("step"),
        num_scan_inputs=1 + len(scanned),
    )
    _give(out, walk, results[len(zeros)], steps)
    for operation, name in zip(spikes, results[len(zeros) + 1 :], strict=True):
        out.give(name, walk.labels[operation.name], steps, BATCH, *operation.value.shape)
    return out, one.spikes


def _zeros(out: Builder, x: str, operation: Operation) -> str:
    """Potentials at rest."""
    batch = out.add("Shape", [x], "batch", start=1, end=2)
    shape = out.constant(list(operation.value.shape), f"{operation.name}.shape")
    whole = out.add("Concat", [batch, shape], f"{operation.name}.whole", axis=0)
    return out.add("ConstantOfShape", [whole], f"{operation.name}.rest")


def _states_first(one: OneStep) -> None:
    """In the order in which a scan has them."""
    before, after = list(one.before.values()), list(one.after.values())
    one.out.inputs.sort(key=lambda known: known.name not in before)
    one.out.outputs.sort(key=lambda known: known.name not in after)


def _give(out: Builder, walk: Walk, results: str, steps: int | str) -> None:
    """What the network gives, of what its steps give."""
    value = walk.nodes[-1].value
    if value.time == "none":
        mean = out.add("ReduceMean", [results, out.constant([0], "time")], "mean", keepdims=0)
        out.give(mean, OUTPUT, BATCH, *value.shape)
    else:
        out.give(results, OUTPUT, steps, BATCH, *value.shape)


LAYOUTS = {"merged": merged, "scan": scan, "step": step}


def model(out: Builder, description: Description) -> onnx.ModelProto:
    """The whole file.

    Arguments:
        out: the graph.
        description: of it.
    """
    made = helper.make_model(
        out.graph("spikefold"),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="spikefold",
        producer_version=description.version,
    )
    helper.set_model_props(made, {KEY: written(description)})
    return made
