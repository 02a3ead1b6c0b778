"""The neurons as fused kernels; README.md beside this file explains them."""

from spikefold.dynamics._kernels._fused import is_looked_on, missing, simulate_fused, update_running
from spikefold.dynamics._kernels._pool import average_pool
from spikefold.dynamics._kernels._prepared import PreparedLayer, PreparedPool
from spikefold.dynamics._kernels._statistics import statistics_of_steps

__all__ = [
    "PreparedLayer",
    "PreparedPool",
    "average_pool",
    "is_looked_on",
    "missing",
    "simulate_fused",
    "statistics_of_steps",
    "update_running",
]
