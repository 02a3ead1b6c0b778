"""Data sets as tensors: images, labels, and their split into training, validation and test."""

from spikefold.data._augment import (
    Augmentation,
    cutout,
    random_crop,
    random_flip,
    random_roll,
)
from spikefold.data._frames import EVENT, to_frames
from spikefold.data._load import DATASETS, DatasetInfo, load_dataset
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
    "Recording",
    "Samples",
    "SplitName",
    "TensorSamples",
    "cutout",
    "load_dataset",
    "random_crop",
    "random_flip",
    "random_roll",
    "read_recording",
    "stratified_split",
    "to_frames",
]
