"""What a network takes in, and how files and data sets become that."""

from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from spikefold.data._frames import Framing, frames_of
from spikefold.data._images import read_image
from spikefold.data._recordings import read_recording
from spikefold.data._samples import Dataset, Samples
from spikefold.errors import DataError


@dataclass(frozen=True)
class InputSpec:
    """What a network takes in: `network.input_spec`, which is saved and loaded with it.

    Arguments:
        channels: C: 1 for gray images, 3 for colour images, 2 for events.
        framing: how recordings become frames or image files tensors; of recordings if it has steps.
        classes: their names, in the order of the logits.
        mean: of each channel, taken off images in [0, 1] or counts of events before the network
            sees them; empty: nothing is. A network that standardizes its input itself needs none.
        deviation: of each channel, by which the rest is divided; as many as `mean`.

    Raises:
        DataError: if the size is missing, a number is out of range, or there are not as many means
            and deviations as channels.
    """

    channels: int
    framing: Framing
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        names = self.classes
        if isinstance(names, str) or len(set(names)) != len(names):
            raise DataError(f"input: classes must be names, each once, got {names!r}")
        if self.channels < 1 or self.framing.size is None:
            raise DataError("input: channels must be at least 1, and the framing must have a size")
        if self.framing.steps is not None and self.channels != 2:
            raise DataError(f"input: frames have 2 channels of events, not {self.channels}")
        if not len(self.mean) == len(self.deviation) in (0, self.channels):
            raise DataError(
                f"input: {self.channels} channels, but {len(self.mean)} means and "
                f"{len(self.deviation)} deviations: give one of each a channel, or none"
            )
        finite = all(map(isfinite, (*self.mean, *self.deviation)))
        if not finite or min(self.deviation, default=1) <= 0:
            raise DataError("input: means must be finite, deviations positive and finite")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a sample: `(C, H, W)` for images, `(T, C, H, W)` for frames."""
        size = self.framing.size
        assert size is not None
        image = (self.channels, size, size)
        return image if self.framing.steps is None else (self.framing.steps, *image)

    def standardized(self, x: Float[Tensor, "... C H W"]) -> Float[Tensor, "... C H W"]:
        """Images or frames less `mean`, divided by `deviation`.

        Arguments:
            x: as read.
        """
        if not self.mean:
            return x
        mean, deviation = (x.new_tensor(v)[:, None, None] for v in (self.mean, self.deviation))
        return (x - mean) / deviation


def spec_of(dataset: Dataset) -> InputSpec:
    """What a network that is trained on a data set takes in.

    Arguments:
        dataset: as it is loaded.
    """
    shape = dataset.train.shape
    steps = shape[0] if len(shape) == 4 else None
    own = Framing(steps, shape[-1], margin=None if steps else 1.0)
    framing = own if dataset.framing is None else dataset.framing.over(own)
    return InputSpec(shape[-3], framing, dataset.names)


def read_input(path: str | Path, spec: InputSpec) -> tuple[Float[Tensor, "..."], str]:
    """A file as a network's input, in a batch of one; and a description of it.

    Arguments:
        path: image file or event recording.
        spec: of the network.

    Returns:
        an image `[1, C, H, W]` or frames `[T, 1, 2, H, W]`.

    Raises:
        DataError: if the file cannot be read, or is from another sensor than the network's.
    """
    if spec.framing.steps is None:
        x, what = _image(Path(path), spec)
    else:
        x, what = _frames(Path(path), spec.framing)
    return spec.standardized(x), what


def _image(path: Path, spec: InputSpec) -> tuple[Tensor, str]:
    if spec.channels not in (1, 3):
        raise DataError(f"{path}: image files have 1 or 3 channels, not the {spec.channels} taken")
    size, margin = spec.framing.size, spec.framing.margin
    assert size is not None
    pixels = read_image(path, size, 1.0 if margin is None else margin, gray=spec.channels == 1)
    return torch.from_numpy(pixels)[None], f"image as {size}x{size}"


def _frames(path: Path, framing: Framing) -> tuple[Tensor, str]:
    recording = read_recording(path)
    sensor = framing.sensor or recording.sensor
    if recording.stated and recording.sensor != sensor:
        raise DataError(
            f"{path}: from a sensor of {_by(recording.sensor)}, the network reads "
            f"{_by(sensor)}: name the sensor (--sensor WIDTH HEIGHT) to have it scaled all the same"
        )
    frames = frames_of(recording.events, replace(framing, sensor=sensor), str(path))
    what = f"{recording.format}, {len(recording.events):,} events, {_by(sensor)}"
    return torch.from_numpy(frames).float().unsqueeze(1), what


def _by(sensor: tuple[int, int]) -> str:
    return f"{sensor[0]}x{sensor[1]}"


@dataclass(frozen=True, repr=False)
class _Standardized(Samples):
    """Samples as `InputSpec.standardized` makes them."""

    samples: Samples
    spec: InputSpec

    @property
    def labels(self) -> Int64[Tensor, "N"]:  # type: ignore[override]
        return self.samples.labels

    @property
    def shape(self) -> tuple[int, ...]:
        return self.samples.shape

    def read(self, chosen: Int64[Tensor, "B"]) -> Float[Tensor, "..."]:
        return self.spec.standardized(self.samples.read(chosen))

    def subset(self, chosen: Int64[Tensor, "M"]) -> Samples:
        return _Standardized(self.samples.subset(chosen), self.spec)


def fitted(dataset: Dataset, spec: InputSpec) -> Dataset:
    """A data set as a network takes it: standardized where its description says so.

    Arguments:
        dataset: loaded in the description's form.
        spec: of the network.

    Raises:
        DataError: if its samples have another shape, or its classes are others.
    """
    sample = next(filter(len, (dataset.train, dataset.validation, dataset.test)))
    require_shape(dataset.name, sample.shape, spec)
    if spec.classes:
        _require_classes(dataset, spec.classes)
    if not spec.mean:
        return dataset
    parts = (dataset.train, dataset.validation, dataset.test)
    train, validation, test = (_Standardized(samples, spec) for samples in parts)
    return replace(dataset, train=train, validation=validation, test=test)


def require_shape(name: str, shape: tuple[int, ...], spec: InputSpec) -> None:
    """Refuse samples of another shape than a network takes.

    Arguments:
        name: of the data set.
        shape: of its samples.
        spec: of the network.

    Raises:
        DataError: with both.
    """
    if shape != spec.shape:
        raise DataError(f"the network takes {_shown(spec.shape)}, but {name} has {_shown(shape)}")


def _shown(shape: tuple[int, ...]) -> str:
    steps = f"{shape[0]} frames of " if len(shape) == 4 else "images of "
    return f"{steps}{shape[-3]} channels, {shape[-2]}x{shape[-1]}"


def _require_classes(dataset: Dataset, names: tuple[str, ...]) -> None:
    """Refuse another number of classes, or others; numbers for names fit any."""
    if dataset.classes != len(names):
        raise DataError(
            f"{dataset.name} has {dataset.classes} classes, the network tells {len(names)} apart"
        )
    numbers = tuple(map(str, range(len(names))))
    if numbers in (names, dataset.names):
        return
    for number, (here, there) in enumerate(zip(dataset.names, names, strict=True)):
        if here != there:
            raise DataError(
                f"{dataset.name}: class {number} is '{here}', the network's is '{there}'"
            )
