"""One file a network: safetensors, with a JSON header that rebuilds it. Nothing is executed."""

from spikefold.saving._lock import LOCK, is_first, locked
from spikefold.saving._network import Stored, load, read, save
from spikefold.saving._replacing import remove_unfinished, replacing

__all__ = [
    "LOCK",
    "Stored",
    "is_first",
    "load",
    "locked",
    "read",
    "remove_unfinished",
    "replacing",
    "save",
]
