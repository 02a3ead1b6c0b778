"""What an exported file says about itself: enough to feed it, to read its answer, to check it."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from spikefold.data import InputSpec
from spikefold.errors import ConfigError, ExportError
from spikefold.export._walk import Walk
from spikefold.plain import from_plain, to_plain
from spikefold.ranges import require_within
from spikefold.records import sha256
from spikefold.registry import registered_only

Layout = Literal["merged", "scan", "step"]
KEY = "spikefold"  # of the metadata
INPUT, OUTPUT = "x", "logits"


@dataclass(frozen=True)
class Description:
    """What an exported file says about itself.

    Attributes:
        layout: "merged", "scan" or "step".
        steps: T of the export; "scan" takes any, where no layer has parameters of each step.
        image: whether the input is one image `[N, C, ...]` for all steps, or frames.
        shape: of one sample at one time step, `(C, ...)`.
        timed: whether the network gives something at each step, and not the mean over time.
        neurons: calls of neurons in order: path of the module, and name of their spikes inside.
        input: how files become the input, and the names of the classes, where they are known.
        fused: whether batch norms were fused into convolutions for the export.
        source: SHA-256 of the network's file, where there was one.
        version: of the spikefold that exported it.
    """

    layout: Layout
    steps: int
    image: bool
    shape: tuple[int, ...]
    timed: bool = False
    neurons: tuple[tuple[str, str], ...] = ()
    input: InputSpec | None = None
    fused: bool = False
    source: str = ""
    version: str = version("spikefold")

    def __post_init__(self) -> None:
        require_within("export", self, steps="[1, 10000]")

    def require_fit(self, path: Path, shape: tuple[int, ...], got: str) -> None:
        """Refuse samples that the file does not take.

        Arguments:
            path: of the file, for messages.
            shape: of a sample, `(C, ...)` of an image or `(T, C, ...)`.
            got: what has that shape, for messages.

        Raises:
            ExportError: if they do not fit.
        """
        steps = shape[: len(shape) - len(self.shape)]
        frames = bool(steps) or len(shape) < len(self.shape)
        if shape[len(steps) :] != self.shape or (frames and self.image):
            kind = "images [N, " if self.image else "frames [T, N, "
            raise ExportError(f"{path}: takes {kind}{', '.join(map(str, self.shape))}], got {got}")
        if frames and self.layout == "merged" and steps != (self.steps,):
            raise ExportError(f"{path}: takes {self.steps} steps, got {steps[0]}")

    def fitting(self, path: Path, x: Tensor) -> Tensor:
        """An input as the file takes it: an image of a file that takes frames, at all steps.

        Arguments:
            path: of the file, for messages.
            x: images `[N, ...]` or frames `[T, N, ...]`.

        Raises:
            ExportError: if it does not fit.
        """
        image = x.ndim == 1 + len(self.shape)
        sample = x.shape[1:] if image else (*x.shape[:1], *x.shape[2:])
        self.require_fit(path, tuple(sample), str(list(x.shape)))
        return x.expand(self.steps, *x.shape) if image and not self.image else x


def described(
    network: nn.Module, walk: Walk, layout: Layout, fused: bool, source: str | Path | None
) -> Description:
    """The description of an export, yet without the names inside.

    Arguments:
        network: that is exported.
        walk: of it.
        layout: of the export.
        fused: for the export.
        source: the network's file.
    """
    value = walk.nodes[0].value
    return Description(
        layout,
        walk.steps,
        value.time == "still" and layout == "merged",
        value.shape,
        walk.nodes[-1].value.time == "steps",
        input=getattr(network, "input_spec", None),
        fused=fused,
        source="" if source is None else file_hash(Path(source)),
    )


def begins_with(path: Path, magic: bytes) -> bool:
    """Whether a file can be read and its first bytes are these."""
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


def file_hash(path: Path) -> str:
    """SHA-256 of a file.

    Raises:
        ExportError: if it cannot be read.
    """
    try:
        return sha256(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read: {error.strerror}") from error


def written(description: Description) -> str:
    """The description as text."""
    return json.dumps(to_plain(description))


def read_description(path: Path, text: str | None) -> Description:
    """The description that `written` wrote.

    Arguments:
        path: for messages.
        text: found in the file; None: nothing was.

    Raises:
        ExportError: if it is none.
    """
    if text is None:
        raise ExportError(
            f"{path}: not exported by spikefold: it does not say what its neurons are"
        )
    try:
        with registered_only():
            return from_plain(json.loads(text), Description, "description")
    except (ValueError, RecursionError, ConfigError) as error:
        raise ExportError(f"{path}: its description by spikefold is damaged: {error}") from error
