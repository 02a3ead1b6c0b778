"""What comes in from elsewhere."""

from spikefold.adopt._convert import Converted, convert

__all__ = ["Converted", "convert"]
