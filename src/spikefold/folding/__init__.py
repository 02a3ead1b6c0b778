"""Exact fold of membrane normalization into thresholds, conv-BN fusion, and the proof of both."""

from spikefold.folding._fold import exact_thresholds, fold, fold_neuron
from spikefold.folding._fuse import FUSIONS, Features, fuse, fuse_conv_bn
from spikefold.folding._threshold import from_ordinal, last_silent, to_ordinal
from spikefold.folding._verify import (
    LayerRecord,
    Verification,
    evaluation,
    verify,
)

TRANSFORMS = {transform.__name__: transform for transform in (fold, fuse_conv_bn)}

__all__ = [
    "FUSIONS",
    "TRANSFORMS",
    "Features",
    "LayerRecord",
    "Verification",
    "evaluation",
    "exact_thresholds",
    "fold",
    "fold_neuron",
    "from_ordinal",
    "fuse",
    "fuse_conv_bn",
    "last_silent",
    "to_ordinal",
    "verify",
]
