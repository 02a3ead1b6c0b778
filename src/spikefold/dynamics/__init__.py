"""The equations of the neuron and of its normalization, once, as pure functions in plain torch;
next to them fused kernels, tested to compute the same.
"""

from typing import TYPE_CHECKING

from spikefold import renamed
from spikefold.dynamics._backend import (
    Backend,
    average_pool,
    backend,
    simulate,
    update_running,
)
from spikefold.dynamics._check import batch_first
from spikefold.dynamics._condition import (
    PLAIN,
    Condition,
    Normalization,
    Normalizing,
    Over,
    Statistics,
)
from spikefold.dynamics._kernels import PreparedLayer, PreparedPool, is_looked_on
from spikefold.dynamics._kernels import missing as missing_kernels
from spikefold.dynamics._layer import Currents, compute, simulate_reference
from spikefold.dynamics._neuron import (
    Fired,
    Neuron,
    Reset,
    charge,
    integrate,
    membrane_dtype,
    reset,
)
from spikefold.dynamics._norm import (
    Observed,
    normalize,
    of_step,
    per_neuron,
    reference_update,
    sample_count,
    scale,
    statistics,
)
from spikefold.dynamics._surrogate import (
    SURROGATES,
    Atan,
    Form,
    Rectangle,
    Sigmoid,
    Surrogate,
    Tanh,
    Triangle,
    fire,
    is_above,
    register_surrogate,
)

__all__ = [
    "PLAIN",
    "SURROGATES",
    "Atan",
    "Backend",
    "Condition",
    "Currents",
    "Fired",
    "Form",
    "Neuron",
    "Normalization",
    "Normalizing",
    "Observed",
    "Over",
    "PreparedLayer",
    "PreparedPool",
    "Rectangle",
    "Reset",
    "Sigmoid",
    "Statistics",
    "Surrogate",
    "Tanh",
    "Triangle",
    "average_pool",
    "backend",
    "batch_first",
    "charge",
    "compute",
    "fire",
    "integrate",
    "is_above",
    "is_looked_on",
    "membrane_dtype",
    "missing_kernels",
    "normalize",
    "of_step",
    "per_neuron",
    "reference_update",
    "register_surrogate",
    "reset",
    "sample_count",
    "scale",
    "simulate",
    "simulate_reference",
    "statistics",
    "update_running",
]

if not TYPE_CHECKING:
    _constants = renamed.arguments(neuron="constants")
    __getattr__ = renamed.names(
        __name__,
        discharge=_constants(reset),
        layer=_constants(simulate),
        reference_layer=_constants(simulate_reference),
    )
