"""Exact fold of membrane normalization into thresholds, conv-BN fusion, and the proof of both."""

from spikefold.folding._batches import Batch, inputs_and_labels, require_batches
from spikefold.folding._fold import exact_thresholds, fold, fold_shapes
from spikefold.folding._fuse import (
    FUSIONS,
    Features,
    fuse,
    fuse_conv_bn,
    fuse_conv_bn_shapes,
    is_fusable,
)
from spikefold.folding._threshold import from_ordinal, last_silent, to_ordinal
from spikefold.folding._verify import LayerRecord, Verification, evaluation, verify

# The structural half of each transform, by its name: what a file is loaded into.
SHAPES = {"fold": fold_shapes, "fuse_conv_bn": fuse_conv_bn_shapes}

__all__ = [
    "FUSIONS",
    "SHAPES",
    "Batch",
    "Features",
    "LayerRecord",
    "Verification",
    "evaluation",
    "exact_thresholds",
    "fold",
    "fold_shapes",
    "from_ordinal",
    "fuse",
    "fuse_conv_bn",
    "fuse_conv_bn_shapes",
    "inputs_and_labels",
    "is_fusable",
    "last_silent",
    "require_batches",
    "to_ordinal",
    "verify",
]
