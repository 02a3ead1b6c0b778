"""Modules: neurons, membrane potential batch normalization, and the layer networks are made of."""

from spikefold.nn._attached import attached, strange
from spikefold.nn._batch_norm import BATCH_NORMS, SynchronizedBatchNorm
from spikefold.nn._copy import copied, replaced, twin
from spikefold.nn._current_affine import CurrentAffine
from spikefold.nn._current_norms import BNTT, TAB, TEBN, TdBN
from spikefold.nn._layer import (
    OverTime,
    SpikingLayer,
    merge_time,
    over_time,
    split_time,
)
from spikefold.nn._mpbn import MPBN
from spikefold.nn._neuron import IF, LIF, PLIF, FoldedLIF, SpikingNeuron
from spikefold.nn._norm import CurrentNorm, MembraneNorm, Norm, is_called
from spikefold.nn._observe import Call, observing
from spikefold.nn._recording import WithSpikes, with_spikes
from spikefold.nn._running import Processes
from spikefold.nn._state import State, require_evaluation
from spikefold.nn._still import is_constant_in_time
from spikefold.nn._stream import States, Stream
from spikefold.nn._synchronize import synchronize_statistics
from spikefold.nn._traceable import traceable
from spikefold.nn._transforms import transformed, transforms_of, unwrapped

__all__ = [
    "BATCH_NORMS",
    "BNTT",
    "IF",
    "LIF",
    "MPBN",
    "PLIF",
    "TAB",
    "TEBN",
    "Call",
    "CurrentAffine",
    "CurrentNorm",
    "FoldedLIF",
    "MembraneNorm",
    "Norm",
    "OverTime",
    "Processes",
    "SpikingLayer",
    "SpikingNeuron",
    "State",
    "States",
    "Stream",
    "SynchronizedBatchNorm",
    "TdBN",
    "WithSpikes",
    "attached",
    "copied",
    "is_called",
    "is_constant_in_time",
    "merge_time",
    "observing",
    "over_time",
    "replaced",
    "require_evaluation",
    "split_time",
    "strange",
    "synchronize_statistics",
    "traceable",
    "transformed",
    "transforms_of",
    "twin",
    "unwrapped",
    "with_spikes",
]
