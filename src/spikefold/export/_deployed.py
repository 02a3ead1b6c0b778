"""Networks that another runtime runs, for latency below torch's own dispatch."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from jaxtyping import Float
from torch import Tensor, nn

from spikefold.errors import ExportError, ShapeError
from spikefold.export._check import Check, check
from spikefold.export._onnx import to_onnx
from spikefold.export._runtimes import find_runtime


class Deployed(nn.Module):
    """A network as another runtime runs it; `deploy` makes it.

    Attributes:
        runtime: its name.
        record: of the check.
    """

    def __init__(
        self, run: Callable[[Tensor], Tensor], steps: int, runtime: str, record: Check
    ) -> None:
        super().__init__()
        self.run, self.steps = run, steps
        self.runtime, self.record = runtime, record
        self.eval()

    def forward(self, x: Float[Tensor, "..."], steps: int | None = None) -> Tensor:
        """What the network gives, in float32 on the CPU, without a gradient.

        Arguments:
            x: images or frames, of any batch.
            steps: those it was made for, or None.

        Raises:
            ShapeError: if steps are others.
        """
        if steps not in (None, self.steps):
            raise ShapeError(f"made for {self.steps} time steps, got steps={steps}")
        return self.run(x)


def deploy(
    network: nn.Module,
    example: Float[Tensor, "..."],
    runtime: str = "onnxruntime",
    *,
    fuse: bool = False,
    steps: int | None = None,
) -> Deployed:
    """A folded network run by another runtime, which is checked on the example first.

    Arguments:
        network: folded, or without a membrane norm, on the CPU; not changed, and later changes do
            not count.
        example: inputs as the network takes them, of any batch: real ones, for they are the proof.
        runtime: "onnxruntime", "openvino" (in float32) or "reference".
        fuse: fuse batch norms into convolutions (faster; changes rounding).
        steps: T for images; default: the network's own.

    Returns:
        a callable module from inputs to what the network gives.

    Raises:
        ExportError: if the network cannot be exported, the runtime is not installed, or computes
            something else.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4))
        >>> fast = sf.deploy(network, torch.rand(4, 1, 8, 8))
        >>> fast(torch.rand(1, 1, 8, 8)).shape
        torch.Size([1, 10])
    """
    run = find_runtime(runtime)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        to_onnx(network, path, fuse=fuse, example=example, steps=steps)
        # needs onnx
        from spikefold.export._onnx_file import OnnxFile

        record = check(network, path, [example], runtime=runtime)
        exported = OnnxFile(path)
    if not record.passed:
        raise ExportError(f"{runtime} computes something else than the network: {record}")
    return Deployed(exported.run_by(run), exported.description.steps, runtime, record)
