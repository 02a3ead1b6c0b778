"""Networks as programs of torch.export, in plain aten operators: spikefold is not needed to run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold import dynamics
from spikefold.errors import ExportError
from spikefold.export._description import KEY, Layout, described, written
from spikefold.export._walk import Walk, walk
from spikefold.folding import fuse_conv_bn
from spikefold.nn import CurrentNorm, SpikingNeuron, State, observing, twin
from spikefold.replacing import replacing


def to_torch(
    network: nn.Module,
    path: str | Path,
    *,
    layout: Layout = "merged",
    fuse: bool = False,
    compile: bool = False,
    example: Float[Tensor, "..."] | None = None,
    steps: int | None = None,
    source: str | Path | None = None,
) -> None:
    """Write a folded network as a torch.export program that runs where spikefold is not installed.

    `torch.export.load(path).module()` takes any batch. Layouts:

    - "merged": an image `[N, C, H, W]` or frames `[T, N, C, H, W]` of the export's T to logits.
    - "step": a frame `[N, C, H, W]` and potentials by layer (zeros at first) to this step's logits
      and the next potentials.

    Arguments:
        network: folded, or without a membrane norm; not changed.
        path: file to write, `*.pt2`.
        layout: "merged" or "step".
        fuse: fuse batch norms into convolutions (faster; changes rounding, as `fuse_conv_bn`).
        compile: compile it with AOTInductor, for this machine's kind of processor; takes minutes.
            `torch._inductor.aoti_load_package(path)` loads it. It is machine code, which says
            nothing about itself: `check` refuses it.
        example, steps, source: as for `to_onnx`; no source with `compile`.

    Raises:
        ExportError: if something in the network cannot be said; names the layer.
        GraphError: if the network cannot be followed.
        FoldError: with `fuse`, if nothing is to be fused.
        FileFormatError: if the file cannot be written.

    Example:
        >>> import tempfile, torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4, image_size=8))
        >>> with tempfile.TemporaryDirectory() as folder:  # doctest: +SKIP
        ...     sf.to_torch(network, f"{folder}/network.pt2")
        ...     logits = torch.export.load(f"{folder}/network.pt2").module()(torch.rand(2, 1, 8, 8))
    """
    if layout not in ("merged", "step"):
        raise ExportError(f"export: torch has the layouts merged and step, not {layout!r}")
    if compile and source is not None:
        raise ExportError("export: a compiled program has no place for its source: leave it out")
    network = fuse_conv_bn(network) if fuse else network
    walked = walk(network, example, steps)
    program, spikes = _program(network, walked, layout, steps)
    paths = [neurons.node.path for neurons in walked.neurons()]
    description = replace(
        described(network, walked, layout, fuse, source),
        neurons=tuple(zip(paths, spikes, strict=True)),
    )
    with replacing(Path(path)) as temporary, temporary.open("wb") as file:
        if compile:
            file.write(_compiled(program))
        else:
            torch.export.save(program, file, extra_files={KEY: written(description)})


def _program(
    network: nn.Module, walked: Walk, layout: Layout, steps: int | None
) -> tuple[torch.export.ExportedProgram, list[str]]:
    """The program, and the names of the spikes of all calls of neurons in it."""
    value, running = walked.nodes[0].value, twin(network).eval()
    frames = value.time == "steps" and layout == "merged"
    # not of one sample, on which the program would be specialized
    x = torch.zeros(*(walked.steps,) * frames, 2, *value.shape)
    many = torch.export.Dim.DYNAMIC
    inputs: tuple[Any, ...] = (x,)
    sizes: tuple[Any, ...] = ({int(frames): many},)
    if layout == "step":
        running = _OneStep(running, walked)
        inputs += ({name: torch.zeros(2, *shape) for name, shape in running.shapes.items()},)
        sizes += ({name: {0: many} for name in running.shapes},)
    elif steps is not None:
        # the program's own, and no input of it
        running.__dict__["forward"] = partial(running.forward, steps=steps)
    with dynamics.backend("reference"), torch.no_grad(), _one_line("torch.export"):
        program = torch.export.export(running, inputs, dynamic_shapes=sizes)
        _give_spikes(running)
        watched = torch.export.export(running, inputs, dynamic_shapes=sizes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, and most of the text
    return program, _spikes(program, watched, len(walked.neurons()))


def _spikes(
    program: torch.export.ExportedProgram, watched: torch.export.ExportedProgram, count: int
) -> list[str]:
    """What the last outputs of the watched program are called, which are the spikes."""

    def calls(one: torch.export.ExportedProgram) -> list[tuple[str, Any]]:
        return [(n.name, n.target) for n in one.graph.nodes if n.op == "call_function"]

    # the same calls in the same order have the same names
    if calls(program) != calls(watched):
        raise ExportError("export: the program is another where its spikes are watched")
    names = [spec.arg.name for spec in watched.graph_signature.output_specs]
    return names[len(names) - count :]


def _give_spikes(network: nn.Module) -> None:
    """Make the spikes of all calls of neurons further outputs of a network."""
    forward = network.forward

    @wraps(forward)  # torch.export looks at its arguments
    def watched(*inputs: Any) -> tuple[Any, list[Tensor]]:
        fired: list[Tensor] = []
        with observing(network, lambda _, call: fired.append(call.fired.spikes)):
            return forward(*inputs), fired

    # a hook would be the original network's as well
    network.__dict__["forward"] = watched


def _of_each_step(module: Any) -> str | None:
    """What a module has of each time step, so that a program would have to know which one it is."""
    if isinstance(module, SpikingNeuron) and module.condition().steps() is not None:
        return "thresholds"
    if isinstance(module, CurrentNorm) and module.normalization().steps() is not None:
        return "parameters"
    return None


class _OneStep(nn.Module):
    """One step of a network: potentials come in and go out.

    Attributes:
        shapes: of the potentials of one sample, by layer.
    """

    network: Any

    def __init__(self, network: nn.Module, walked: Walk) -> None:
        super().__init__()
        if not hasattr(network, "step"):
            raise ExportError(
                f"export: {type(network).__name__} has no step(x, state): layout='merged' can say "
                "it, and ONNX has steps of any network"
            )
        for operation in walked.nodes:
            what = _of_each_step(operation.module)
            if what is not None:
                raise ExportError(
                    f"export: {operation.node.what}: {what} of each time step: layout='merged' "
                    "can say them, and ONNX has steps with them"
                )
        self.network = network
        _, states = self.network.step(torch.zeros(1, *walked.nodes[0].value.shape))
        self.shapes = {name: tuple(state.v.shape[1:]) for name, state in states.items()}

    def forward(self, x: Tensor, v: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits of this step, and the potentials after it."""
        # t=None: which step it is does not matter
        states = {name: State(value, None) for name, value in v.items()}
        logits, after = self.network.step(x, states)
        return logits, {name: after[name].v for name in v}


def _compiled(program: torch.export.ExportedProgram) -> bytes:
    with tempfile.TemporaryDirectory() as folder, _one_line("AOTInductor"):
        package = f"{folder}/network.pt2"
        torch._inductor.aoti_compile_and_package(program, package_path=package)
        return Path(package).read_bytes()


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"export: {what} cannot take the network: {reason}") from error
