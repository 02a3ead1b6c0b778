"""The record of what a network costs, as plain data."""

from dataclasses import dataclass, fields
from typing import Any

# 45 nm, 32-bit floating point: an addition takes 0.9 pJ, a multiplication 3.7 pJ.
# Source: Horowitz, "Computing's Energy Problem", ISSCC 2014, figure 1.1.9.
MAC_PICOJOULES = 4.6
AC_PICOJOULES = 0.9


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a layer or a network costs; operations are means a sample, over all its time steps.

    Attributes:
        parameters: numbers that were learnt.
        weight_bytes: of parameters and statistics.
        threshold_bytes: of folded thresholds and polarities.
        acs: additions of a weight, where a spike meets one that is not 0: synaptic operations.
        macs: multiplications and additions of connections whose input is not all 0 and 1.
        effective_macs: those of them whose value and weight are not 0.
        dense: products of all connections as often as they run, whatever their input is.
        ann: those of an artificial network of the same shape, which runs each once.
        updates: of membrane potentials: neurons times steps.
        fired: spikes.
        norm_operations: of the normalizations that are left.
    """

    parameters: int = 0
    weight_bytes: int = 0
    threshold_bytes: int = 0
    acs: float = 0.0
    macs: float = 0.0
    effective_macs: float = 0.0
    dense: float = 0.0
    ann: float = 0.0
    updates: float = 0.0
    fired: float = 0.0
    norm_operations: float = 0.0

    @property
    def firing_rate(self) -> float | None:
        """Spikes a neuron and step; None where there are no neurons."""
        return self.fired / self.updates if self.updates else None

    @property
    def picojoules(self) -> float:
        """Of MACs and ACs at 45 nm, without memory, membrane updates and norms."""
        return MAC_PICOJOULES * self.macs + AC_PICOJOULES * self.acs

    @property
    def ann_picojoules(self) -> float:
        """Of the artificial network, all of whose products are MACs."""
        return MAC_PICOJOULES * self.ann

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON record."""
        derived = ("firing_rate", "picojoules", "ann_picojoules")
        names = (*(field.name for field in fields(self)), *derived)
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class LayerCost(Figures):
    """A `SpikingLayer`, or a connection, norm or neurons that stand alone.

    Attributes:
        name: its path in the network.
        source: what feeds its connection; None if it has none.
        spikes: whether all that feeds it was 0 or 1, so that it adds and does not multiply.
        norms: normalizations that are left, by class: operations a neuron and step.
    """

    name: str
    source: str | None = None
    spikes: bool | None = None
    norms: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Cost(Figures):
    """The record of `cost`: sums over the layers; parameters and bytes of the whole network.

    Attributes:
        layers: in the order in which they run.
        samples: how many were run.
        steps: time steps a sample.
        uncounted: calls of which it is not known what they compute.
        removed: normalizations that fold and fusion removed, by class: "layers", their number, and
            "operations" a sample in all of them (those of what was put in their place are in
            `norm_operations`); None: it is not known what was there before.
    """

    layers: tuple[LayerCost, ...]
    samples: int
    steps: float
    uncounted: tuple[str, ...] = ()
    removed: dict[str, dict[str, Any]] | None = None

    def __str__(self) -> str:
        without = f"; not counted: {', '.join(self.uncounted)}" if self.uncounted else ""
        return (
            f"{self.macs:,.0f} MACs and {self.acs:,.0f} ACs a sample, {self.picojoules / 1e6:.3g} "
            f"µJ (artificial network: {self.ann:,.0f} MACs, {self.ann_picojoules / 1e6:.3g} µJ)"
            + without
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a JSON record."""
        layers = [{"name": layer.name, **layer.to_dict()} for layer in self.layers]
        more = {"uncounted": list(self.uncounted), "removed": self.removed}
        return {**super().to_dict(), "layers": layers, **more}
