"""Train deep spiking networks with membrane potential batch normalization, and fold it exactly.

import spikefold as sf

network = sf.models.resnet20(num_classes=10, norm="mpbn", steps=4)   # train it as any module
folded = sf.fold(network)                                            # MPBN into the thresholds
record = sf.verify(network, folded, batches)                         # record.mismatches == 0
sf.save(folded, "folded.safetensors")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikefold._public import *  # noqa: F403
    from spikefold._public import __all__ as __all__
    from spikefold._public import __version__ as __version__
else:
    # At first use: `spikefold --help` need not wait for torch.
    def __getattr__(name: str) -> Any:
        """A public name, or a package of ours."""
        public = import_module("spikefold._public")
        names = (*public.__all__, "__all__", "__version__")
        globals().update({name: getattr(public, name) for name in names})
        if name not in globals():
            raise AttributeError(f"module 'spikefold' has no attribute '{name}'")
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__getattr__("__all__")})
