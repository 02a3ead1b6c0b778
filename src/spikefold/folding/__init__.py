"""Exact fold of membrane normalization into thresholds, conv-BN fusion, and the proof of both."""

from spikefold.folding._batches import Batch, inputs_and_labels, require_batches
from spikefold.folding._fold import exact_thresholds, fold
from spikefold.folding._fuse import FUSIONS, Features, fuse, fuse_conv_bn, is_fusable
from spikefold.folding._shapes import made_again, transforms_in
from spikefold.folding._threshold import from_ordinal, last_silent, to_ordinal
from spikefold.folding._verify import LayerRecord, Verification, evaluation, verify

__all__ = [
    "FUSIONS",
    "Batch",
    "Features",
    "LayerRecord",
    "Verification",
    "evaluation",
    "exact_thresholds",
    "fold",
    "from_ordinal",
    "fuse",
    "fuse_conv_bn",
    "inputs_and_labels",
    "is_fusable",
    "last_silent",
    "made_again",
    "require_batches",
    "to_ordinal",
    "transforms_in",
    "verify",
]
