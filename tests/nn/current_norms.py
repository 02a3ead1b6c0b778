"""The published norms after the connection, made of channels and steps."""

from collections.abc import Callable

import spikefold as sf


def td_bn(channels: int, steps: int) -> sf.TdBN:
    """Of two branches; it has no parameters a step."""
    return sf.TdBN(channels, threshold=0.5, alpha=0.5**0.5)


NORMS: dict[str, Callable[[int, int], sf.CurrentNorm]] = {
    "BNTT": sf.BNTT,
    "TEBN": sf.TEBN,
    "TAB": sf.TAB,
    "tdBN": td_bn,
}
