"""Networks as ONNX files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

from jaxtyping import Float
from torch import Tensor, nn

from spikefold.errors import ExportError
from spikefold.export._description import Layout, described
from spikefold.export._needs import needed
from spikefold.export._walk import Operation, Walk, walk
from spikefold.folding import fuse_conv_bn
from spikefold.registry import unknown
from spikefold.replacing import replacing


def to_onnx(
    network: nn.Module,
    path: str | Path,
    *,
    layout: Layout = "merged",
    fuse: bool = False,
    spikes: Sequence[str] = (),
    example: Float[Tensor, "..."] | None = None,
    steps: int | None = None,
    source: str | Path | None = None,
) -> None:
    """Write a folded network as an ONNX file (opset 18) that takes any batch, in float32.

    Operators are those of torch's in its order, so that only ties may fall otherwise: `spikefold
    check` tells. Input is "x", output "logits". The file says how its input is read, the names of
    classes and neurons (metadata "spikefold", JSON). Layouts:

    - "merged": an image `[N, C, H, W]` or frames `[T, N, C, H, W]` of the export's T; the fastest.
    - "scan": frames `[T, N, C, H, W]` of any T; thresholds of each time step fix it.
    - "step": a frame `[N, C, H, W]` and each layer's potential "NAME.v" (zeros at first) to this
      step's logits and "NAME.v.next"; with parameters of each step also "t", from 0.

    Arguments:
        network: folded, or without a membrane norm; not changed.
        path: file to write.
        layout: "merged", "scan" or "step".
        fuse: fuse batch norms into convolutions (faster; changes rounding, as `fuse_conv_bn`).
        spikes: paths of neurons whose spikes are outputs too, under these names: `[T, N, ...]`, of
            a step `[N, ...]`.
        example: as the network's input, where the network does not say its shape: images, or
            frames; their values do not matter.
        steps: T for images; default: the network's own.
        source: the network's file, whose SHA-256 the ONNX file keeps.

    Raises:
        ExportError: if something in the network cannot be said, names the layer; if the onnx
            package is not installed.
        GraphError: if the network cannot be followed.
        FoldError: with `fuse`, if nothing is to be fused.
        FileFormatError: if the file cannot be written.

    Example:
        >>> import tempfile, torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4, image_size=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sf.to_onnx(network, f"{folder}/network.onnx")
    """
    if layout not in get_args(Layout):
        raise ExportError(f"export: {unknown('layout', layout, get_args(Layout))}")
    needed("onnx", "export to ONNX", "export")
    # needs onnx itself
    from spikefold.export import _onnx_model

    walked = walk(fuse_conv_bn(network) if fuse else network, example, steps)
    out, names = _onnx_model.LAYOUTS[layout](walked, _chosen(walked, spikes))
    description = replace(
        described(network, walked, layout, fuse, source),
        neurons=tuple((o.node.path, names[o.name]) for o in walked.neurons()),
    )
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(_onnx_model.model(out, description).SerializeToString())


def _chosen(walked: Walk, spikes: Sequence[str]) -> list[Operation]:
    """The neurons whose spikes are asked for."""
    if isinstance(spikes, str):
        raise ExportError(f"export: spikes: a sequence of paths, as [{spikes!r}]")
    neurons = walked.neurons()
    paths = [operation.node.path for operation in neurons]
    for name in spikes:
        if name not in paths:
            raise ExportError(f"export: spikes: {unknown('layer of neurons', name, paths)}")
    return [operation for operation in neurons if operation.node.path in spikes]
