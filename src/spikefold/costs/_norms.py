"""What normalizations compute at inference, and what fold and fusion removed of it."""

from typing import Any

import torch
from torch import nn

from spikefold.costs._seen import Seen
from spikefold.errors import SpikefoldError
from spikefold.folding import made_again, transforms_in
from spikefold.graphs import kind_of_module
from spikefold.models import Network, NIRModel, build
from spikefold.nn import CurrentAffine, MembraneNorm, Norm


def norm_operations(norm: nn.Module) -> int:
    """Operations of a normalization on a value, in evaluation.

    Subtract, multiply and add, by statistics that are kept (multiply and add where none are left);
    for those of the input itself, a sum, and a difference, square and sum.

    Arguments:
        norm: one of ours or of torch's.
    """
    if isinstance(norm, CurrentAffine):
        return 2
    kept = isinstance(norm, Norm) or getattr(norm, "running_mean", None) is not None
    return 3 if kept else 7


def membrane_norms(neurons: nn.Module) -> list[nn.Module]:
    """The normalizations of the potential that these neurons hold."""
    return [part for part in neurons.modules() if isinstance(part, MembraneNorm)]


def norms_left(network: nn.Module) -> dict[str, dict[str, int]]:
    """The normalizations that a network still computes.

    Arguments:
        network: folded, fused, or not.

    Returns:
        by class: "layers", their number, and "operations" a neuron and step each.
    """
    left: dict[str, dict[str, int]] = {}
    for module in network.modules():
        if kind_of_module(module) == "norm" or isinstance(module, MembraneNorm):
            row = left.setdefault(type(module).__name__, {"layers": 0})
            row["layers"] += 1
            row["operations"] = norm_operations(module)
    return left


def as_built(network: nn.Module) -> nn.Module | None:
    """A network like this one before fold and fusion, its weights aside; None if it is not known.

    Arguments:
        network: any.
    """
    done = transforms_in(network)
    if not done:
        return network
    if not isinstance(network, Network) or isinstance(network, NIRModel):
        return None
    try:
        with torch.random.fork_rng(devices=[]):
            built = build(network.name, network.arguments)
        again = made_again(built, done)
    except SpikefoldError:
        # of another module, or changed since it was built
        return None
    return built.to(next(network.parameters())) if _types(again) == _types(network) else None


def _types(network: nn.Module) -> list[tuple[str, type[nn.Module]]]:
    return [(name, type(module)) for name, module in network.named_modules()]


def removed(before: Seen, after: Seen) -> dict[str, dict[str, Any]]:
    """Normalizations that one network computed and the other does not.

    Returns:
        by class: "layers", their number, and "operations" a sample in all of them.
    """
    gone = {}
    left = _totals(after)
    for name, (layers, operations) in _totals(before).items():
        still, computed = left.get(name, (0, 0.0))
        if operations != computed:
            gone[name] = {"layers": layers - still, "operations": operations - computed}
    return gone


def _totals(seen: Seen) -> dict[str, tuple[int, float]]:
    """How many layers have a norm of each class, and its operations a sample in them."""
    totals: dict[str, tuple[int, float]] = {}
    for norm, operations in seen.norm_operations.items():
        layers, total = totals.get(type(norm).__name__, (0, 0.0))
        totals[type(norm).__name__] = layers + 1, total + operations / seen.samples
    return totals
