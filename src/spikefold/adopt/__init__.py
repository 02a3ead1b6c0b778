"""What comes in: trained weights and networks from elsewhere."""

from spikefold.adopt._checkpoint import read_checkpoint
from spikefold.adopt._convert import Converted, convert
from spikefold.adopt._nir import CONVENTIONS as NIR_CONVENTIONS
from spikefold.adopt._nir import Source as NIRSource
from spikefold.adopt._nir import from_nir, nir_model
from spikefold.adopt._nir_file import KEY as NIR_KEY
from spikefold.adopt._nir_file import read_nir, said_in
from spikefold.adopt._nir_nodes import Convention as NIRConvention
from spikefold.adopt._official import (
    OFFICIAL_MODELS,
    STANDARDIZATIONS,
    OfficialInput,
    OfficialModel,
    from_official,
    to_official,
)
from spikefold.adopt._snntorch import from_snntorch
from spikefold.adopt._spikingjelly import from_spikingjelly

__all__ = [
    "NIR_CONVENTIONS",
    "NIR_KEY",
    "OFFICIAL_MODELS",
    "STANDARDIZATIONS",
    "Converted",
    "NIRConvention",
    "NIRSource",
    "OfficialInput",
    "OfficialModel",
    "convert",
    "from_nir",
    "from_official",
    "from_snntorch",
    "from_spikingjelly",
    "nir_model",
    "read_checkpoint",
    "read_nir",
    "said_in",
    "to_official",
]
