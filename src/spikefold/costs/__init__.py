"""What a network costs at inference: operations counted on real data, memory, energy."""

from spikefold.costs._count import cost
from spikefold.costs._norms import norms_left
from spikefold.costs._products import products
from spikefold.costs._record import Cost, Figures, LayerCost

__all__ = ["Cost", "Figures", "LayerCost", "cost", "norms_left", "products"]
