"""The neuron as fused kernels: between two connections, memory is read once and written once.

`dynamics._layer.simulate_reference` is the definition. `_operators` makes torch operators of them;
`_memory` says how tensors lie in memory, `_cpu` and `_triton` compute.
"""

from spikefold.dynamics._kernels._fused import is_looked_on, missing, simulate_fused, update_running
from spikefold.dynamics._kernels._prepared import PreparedLayer

__all__ = ["PreparedLayer", "is_looked_on", "missing", "simulate_fused", "update_running"]
