"""What comes in: trained weights and networks from elsewhere."""

from spikefold.adopt._checkpoint import read_checkpoint
from spikefold.adopt._official import (
    OFFICIAL_MODELS,
    STANDARDIZATIONS,
    OfficialInput,
    OfficialModel,
    from_official,
    to_official,
)

__all__ = [
    "OFFICIAL_MODELS",
    "STANDARDIZATIONS",
    "OfficialInput",
    "OfficialModel",
    "from_official",
    "read_checkpoint",
    "to_official",
]
