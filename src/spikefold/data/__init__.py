"""Data sets as tensors: images, labels, and their split into training, validation and test."""

from spikefold.data._augment import random_crop
from spikefold.data._load import LOADERS, load_dataset
from spikefold.data._samples import (
    Dataset,
    Samples,
    SplitName,
    TensorSamples,
    stratified_split,
)

__all__ = [
    "LOADERS",
    "Dataset",
    "Samples",
    "SplitName",
    "TensorSamples",
    "load_dataset",
    "random_crop",
    "stratified_split",
]
