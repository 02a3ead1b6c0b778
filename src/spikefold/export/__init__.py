"""What leaves the framework: networks as files for other software, and the proof beside them."""

from spikefold.export._walk import Kind, Operation, Time, Value, Walk, walk

__all__ = ["Kind", "Operation", "Time", "Value", "Walk", "walk"]
