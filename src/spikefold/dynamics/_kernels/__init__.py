"""The neuron as fused kernels: between two connections, memory is read once and written once.

`dynamics._layer.reference_layer` is the definition. `_operators` makes torch operators of them;
`_memory` says how tensors lie in memory, `_cpu` and `_triton` compute.
"""

from spikefold.dynamics._kernels._fused import fused_layer, is_looked_on, missing, update_running
from spikefold.dynamics._kernels._prepared import PreparedLayer

__all__ = ["PreparedLayer", "fused_layer", "is_looked_on", "missing", "update_running"]
