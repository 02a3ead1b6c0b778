"""Data sets as tensors: images, labels, and their split into training, validation and test."""

from spikefold.data._augment import (
    Augmentation,
    cutout,
    random_crop,
    random_flip,
    random_resized_crop,
    random_roll,
)
from spikefold.data._frames import EVENT, Framing, to_frames
from spikefold.data._load import DATASETS, DatasetInfo, find_dataset, is_framed, load_dataset
from spikefold.data._recordings import Recording, read_recording
from spikefold.data._samples import (
    Dataset,
    Samples,
    SplitName,
    TensorSamples,
    stratified_split,
)

__all__ = [
    "DATASETS",
    "EVENT",
    "Augmentation",
    "Dataset",
    "DatasetInfo",
    "Framing",
    "Recording",
    "Samples",
    "SplitName",
    "TensorSamples",
    "cutout",
    "find_dataset",
    "is_framed",
    "load_dataset",
    "random_crop",
    "random_flip",
    "random_resized_crop",
    "random_roll",
    "read_recording",
    "stratified_split",
    "to_frames",
]
