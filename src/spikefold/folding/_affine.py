"""Norms as what they are in evaluation: a scale and a shift, of each step or of all."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from spikefold.errors import FoldError
from spikefold.nn import CurrentAffine, CurrentNorm, is_called


class Maps(NamedTuple):
    """What a normalization does in evaluation: `[C]`, or `[T, C]` (or `[1, C]`) for all steps."""

    mean: Tensor
    variance: Tensor
    gain: Tensor
    shift: Tensor
    eps: float


def maps_of(norm: CurrentNorm) -> Maps | None:
    """Those of all steps, of a norm in evaluation; None if it does more, or has no statistics."""
    if is_called(norm):
        return None
    now = _with_values(norm).normalization()
    return None if now.fixed is None else Maps(*now.fixed, now.gain, now.shift, now.eps)


def is_one(maps: Maps) -> bool:
    """Whether they treat all steps alike."""
    return all(len(value) == 1 for value in maps[:4])


def _with_values(norm: CurrentNorm) -> CurrentNorm:
    """The norm; of one on the meta device, a copy of ones: a user's may look at its values."""
    tensors = [*norm.parameters(), *norm.buffers()]
    if not any(tensor.is_meta for tensor in tensors):
        return norm
    made = copy.deepcopy(norm).to_empty(device="cpu")
    for tensor in (*made.parameters(), *made.buffers()):
        tensor.data.fill_(1)
    return made


def scale_and_shift(known: Maps, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The map as scale · x + shift of what comes without the bias; float64, to be rounded once.

    Raises:
        FoldError: if statistics are not finite.
    """
    mean, variance, gain, shift = (value.double() for value in known[:4])
    if not bool((torch.isfinite(mean) & torch.isfinite(variance)).all()):
        raise FoldError("running statistics of the batch normalization are NaN or infinite")
    scale = (variance + known.eps).rsqrt() * gain
    return scale, (-mean if bias is None else bias.double() - mean) * scale + shift


def affine(norm: CurrentNorm) -> CurrentAffine:
    """Gain and shift of each step that compute norm(x) of evaluation, up to rounding.

        gain_t = gamma_t / sqrt(variance_t + eps);  shift_t = beta_t - mean_t · gain_t

    Arguments:
        norm: that `maps_of` knows; not changed.

    Raises:
        FoldError: if statistics are not finite.
    """
    maps = maps_of(norm)
    assert maps is not None
    gain, shift = scale_and_shift(maps)
    made = affine_shape(norm)
    with torch.no_grad():
        made.weight.copy_(gain)
        made.bias.copy_(shift)
    return made


def affine_shape(norm: CurrentNorm) -> CurrentAffine:
    """What `affine` makes of a norm, without the values."""
    now = _with_values(norm).normalization()
    made = CurrentAffine(norm.shape[0], norm.steps or now.steps())
    trains = any(parameter.requires_grad for parameter in norm.parameters())
    device = next((parameter.device for parameter in norm.parameters()), now.gain.device)
    return made.to(device, now.gain.dtype).requires_grad_(trains).train(norm.training)
