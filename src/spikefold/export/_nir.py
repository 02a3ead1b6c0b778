"""Networks as NIR files, and for whom."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold.adopt import NIR_KEY
from spikefold.errors import ExportError
from spikefold.export._description import described, written
from spikefold.export._needs import needed
from spikefold.export._nir_graph import Writer
from spikefold.export._nir_neurons import TARGETS
from spikefold.export._walk import walk
from spikefold.registry import unknown
from spikefold.replacing import replacing

NIRTarget = Literal["norse", "snntorch", "spikingjelly"]


@torch.no_grad()
def nir_graph(
    network: nn.Module,
    *,
    target: NIRTarget | None = None,
    example: Float[Tensor, "..."] | None = None,
    steps: int | None = None,
    source: str | Path | None = None,
) -> Any:
    """A folded network as a graph of the Neuromorphic Intermediate Representation, `nir.NIRGraph`.

    The graph computes one time step; logits `[K, 1, 1]` are to be averaged over the steps. Batch
    norms are fused into convolutions, averages are sums (with smaller weights behind), the readout
    is a convolution of full size. Neurons are LIF and IF with tau and r in float64. For a target,
    the graph is what its importer computes rightly:

    - None: thresholds of each neuron; dt is 1e-4, and a potential must be above the threshold.
    - "norse" 1.1.0 (`norse.torch.from_nir(graph)`, its dt of 1e-3): the same, with larger weights
      in the place of r; nothing may meet in a node.
    - "snntorch" 1.0.0: neurons of one threshold, 1 or 0, fed by weights divided by theta; none
      below 0.
    - "spikingjelly" 2.0.0: the same, also below 0, and one number higher, as it fires there.

    Where thresholds are not those of `network` itself, rounding differs, so that ties may fall
    otherwise.

    Arguments:
        network: folded, or without a membrane norm; not changed.
        target: whose importer shall read it.
        example: as the network's input, where the network does not say its shape; values do not
            matter.
        steps: T for images; default: the network's own.
        source: the network's file, whose SHA-256 the graph keeps.

    Raises:
        ExportError: for what NIR cannot say (thresholds that change over time, soft reset), or the
            target computes wrongly; names the layer.

    Source: Pedersen et al., "Neuromorphic Intermediate Representation", Nature Communications 2024.
    """
    if target not in TARGETS:
        known = [name for name in TARGETS if name]
        raise ExportError(f"export: {unknown('target', str(target), known)}")
    nir = needed("nir", "export to NIR", "export")
    walked = walk(network, example, steps)
    writer = Writer(nir, TARGETS[target], walked)
    writer.write()
    description = replace(
        described(network, walked, "step", True, source),
        neurons=tuple((o.node.path, " ".join(writer.nodes_of(o))) for o in walked.neurons()),
    )
    said: dict[str, Any] = TARGETS[target].convention._asdict()
    said |= {"target": target or "", "description": written(description)}
    try:
        return nir.NIRGraph(writer.nodes, writer.edges, metadata={NIR_KEY: said})
    except ValueError as error:  # of its own checks of shapes
        raise ExportError(f"export: NIR refuses the graph: {error}") from error


def to_nir(
    network: nn.Module,
    path: str | Path,
    *,
    target: NIRTarget | None = None,
    example: Float[Tensor, "..."] | None = None,
    steps: int | None = None,
    source: str | Path | None = None,
) -> None:
    """Write a folded network as a NIR file; see `export.nir_graph`. `from_nir` reads it again.

    Arguments:
        network: folded, or without a membrane norm; not changed.
        path: file to write.
        target: whose importer shall read it: "norse", "snntorch", "spikingjelly"; None: NIR as
            such.
        example: as the network's input, where the network does not say its shape.
        steps: T for images; default: the network's own.
        source: the network's file, whose SHA-256 the NIR file keeps.

    Raises:
        ExportError: for what NIR cannot say or the target computes wrongly; names the layer.
        FileFormatError: if the file cannot be written.

    Example:
        >>> import tempfile, torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4, image_size=8))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     sf.to_nir(network, f"{folder}/network.nir", target="spikingjelly")
        ...     again = sf.from_nir(f"{folder}/network.nir")
        >>> again(torch.rand(4, 2, 1, 8, 8)).mean(0).shape
        torch.Size([2, 10, 1, 1])
    """
    graph = nir_graph(network, target=target, example=example, steps=steps, source=source)
    with replacing(Path(path)) as temporary:
        needed("nir", "export to NIR", "export").write(temporary, graph)
