"""Modules: neurons, membrane potential batch normalization, and the layer networks are made of."""

from spikefold.nn._layer import OverTime, SpikingLayer, is_constant_in_time, over_time
from spikefold.nn._mpbn import MPBN
from spikefold.nn._neuron import LIF, FoldedLIF, SpikingNeuron
from spikefold.nn._synchronize import SynchronizedBatchNorm, synchronize_statistics

__all__ = [
    "LIF",
    "MPBN",
    "FoldedLIF",
    "OverTime",
    "SpikingLayer",
    "SpikingNeuron",
    "SynchronizedBatchNorm",
    "is_constant_in_time",
    "over_time",
    "synchronize_statistics",
]
