"""Norms by their names."""

from torch import nn

from spikefold.dynamics import Neuron
from spikefold.models._arguments import AfterConnection, Norm
from spikefold.nn import BNTT, MPBN, TAB, TEBN, TdBN


def membrane_norm(
    name: Norm,
    channels: int,
    spatial: tuple[int, ...],
    steps: int | None,
    rate: float | None = None,
    threshold: float = Neuron().threshold,
) -> MPBN | None:
    """A norm of membrane potentials, or None for "none".

    Arguments:
        name: one of `Norm`.
        channels: C of the neurons.
        spatial: their size; only "mpbn-element" depends on it.
        steps: T; only "mpbn-steps" depends on it.
        rate, threshold: see `MPBN`.
    """
    if name == "none":
        return None
    return MPBN(
        (channels, *spatial) if name == "mpbn-element" else channels,
        steps=steps if name == "mpbn-steps" else None,
        rate=rate,
        threshold=threshold,
    )


def current_norm(
    name: AfterConnection, channels: int, steps: int | None, threshold: float, branches: int
) -> nn.Module:
    """A norm after a connection; for "none" the identity.

    Arguments:
        name: one of `AfterConnection`.
        channels: C of the connection.
        steps: T; only "bntt", "tebn" and "tab" depend on it.
        threshold, branches: of the neurons; of how many that add it is one; only "tdbn" depends on
            them.
    """
    match name:
        case "bn":
            return nn.BatchNorm2d(channels)
        case "tdbn":
            return TdBN(channels, threshold=threshold, alpha=branches**-0.5)
        case "none":
            return nn.Identity()
    assert steps is not None
    return {"bntt": BNTT, "tebn": TEBN, "tab": TAB}[name](channels, steps)
