"""Data sets as tensors: images, labels, and their split into training, validation and test."""

from spikefold.data._augment import (
    Augmentation,
    cutout,
    random_crop,
    random_flip,
    random_resized_crop,
    random_roll,
)
from spikefold.data._color_jitter import color_jitter
from spikefold.data._frames import EVENT, Framing, frames_of, to_frames
from spikefold.data._images import read_image
from spikefold.data._input import InputSpec, fitted, read_input, require_shape, spec_of
from spikefold.data._load import (
    DATASETS,
    DatasetInfo,
    find_dataset,
    is_framed,
    known_shape,
    load_dataset,
    register,
)
from spikefold.data._recordings import Recording, read_recording
from spikefold.data._samples import Dataset, Samples, SplitName, TensorSamples
from spikefold.data._splits import Parts, held_out, require_every_class, split_off, stratified_split

__all__ = [
    "DATASETS",
    "EVENT",
    "Augmentation",
    "Dataset",
    "DatasetInfo",
    "Framing",
    "InputSpec",
    "Parts",
    "Recording",
    "Samples",
    "SplitName",
    "TensorSamples",
    "color_jitter",
    "cutout",
    "find_dataset",
    "fitted",
    "frames_of",
    "held_out",
    "is_framed",
    "known_shape",
    "load_dataset",
    "random_crop",
    "random_flip",
    "random_resized_crop",
    "random_roll",
    "read_image",
    "read_input",
    "read_recording",
    "register",
    "require_every_class",
    "require_shape",
    "spec_of",
    "split_off",
    "stratified_split",
    "to_frames",
]
