"""The neurons as fused kernels; README.md beside this file explains them."""

from spikefold.dynamics._kernels._fused import is_looked_on, missing, simulate_fused, update_running
from spikefold.dynamics._kernels._prepared import PreparedLayer, PreparedPool

__all__ = [
    "PreparedLayer",
    "PreparedPool",
    "is_looked_on",
    "missing",
    "simulate_fused",
    "update_running",
]
