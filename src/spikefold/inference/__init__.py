"""Networks made ready for inference on inputs of one shape."""

from spikefold.inference._prepare import Prepared, prepare

__all__ = ["Prepared", "prepare"]
