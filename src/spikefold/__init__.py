"""Train deep spiking networks with membrane potential batch normalization, and fold it exactly.

import spikefold as sf

network = sf.models.resnet20(num_classes=10, norm="mpbn", steps=4)   # train it as any module
folded = sf.fold(network)                                            # MPBN into the thresholds
record = sf.verify(network, folded, batches)                         # record.mismatches == 0
sf.save(folded, "folded.safetensors")
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikefold._public import *  # noqa: F403
    from spikefold._public import __all__ as __all__
    from spikefold._public import __version__ as __version__
else:
    # At first use: `spikefold --help` need not wait for torch.
    def __getattr__(name: str) -> Any:
        """A package of ours, or a public name."""
        if find_spec(f"spikefold.{name}"):
            return import_module(f"spikefold.{name}")
        public = vars(import_module("spikefold._public"))
        names = ("__all__", "__version__", *public["__all__"])
        globals().update({key: public[key] for key in names if key in public})
        if name not in globals():
            raise AttributeError(f"module 'spikefold' has no attribute '{name}'")
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
