"""One file a network: safetensors, with a JSON header that rebuilds it. Nothing is executed."""

from spikefold.saving._lock import LOCK, is_first, locked
from spikefold.saving._network import Stored, load, read, save

__all__ = [
    "LOCK",
    "Stored",
    "is_first",
    "load",
    "locked",
    "read",
    "save",
]
