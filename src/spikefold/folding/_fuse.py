"""Fusion of a batch normalization into the convolution or linear layer before it."""

import copy
import itertools
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.errors import FoldError
from spikefold.models import Network
from spikefold.nn import SpikingLayer

ModelT = TypeVar("ModelT", bound=nn.Module)
Connection = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@torch.no_grad()
def fuse(connection: Connection, norm: _BatchNorm) -> Connection:
    """One layer that computes norm(connection(x)) of evaluation, up to rounding.

        weight' = weight · scale;  bias' = (bias - mean) · scale + beta;
        scale = gamma / sqrt(variance + eps)

    Arguments:
        connection: convolution or linear; left as it is.
        norm: batch normalization with running statistics.

    Raises:
        FoldError: if the normalization keeps no running statistics, or they are not finite.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise FoldError("the batch normalization keeps no running statistics")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    if not bool((torch.isfinite(mean) & torch.isfinite(variance)).all()):
        raise FoldError("running statistics of the batch normalization are NaN or infinite")
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        scale = scale * norm.weight.double()
    bias = -mean if connection.bias is None else connection.bias.double() - mean
    bias = bias * scale + (norm.bias.double() if norm.affine else 0)
    weight = connection.weight.double() * scale.reshape(-1, *(1,) * (connection.weight.ndim - 1))
    fused = copy.deepcopy(connection)
    fused.weight.copy_(weight)
    fused.bias = nn.Parameter(bias.to(connection.weight.dtype))
    return fused


def fuse_conv_bn(model: ModelT) -> ModelT:
    """A new model in which the batch normalization after each convolution is part of it.

    Works on the units (`SpikingLayer`) and on sequences (such as projecting shortcuts). Unlike
    the fold this changes rounding, so a few spikes may differ: `verify(model, fused, batches)`
    tells how many, and what that does to the accuracy.

    Arguments:
        model: trained network, folded or not; left as it is.

    Returns:
        the fused network, in evaluation mode.

    Raises:
        FoldError: if nothing is to be fused, or statistics are not finite (the layer is named).
    """
    fused = copy.deepcopy(model).eval()
    done = 0
    for name, module in fused.named_modules():
        try:
            done += _fuse_children(module)
        except FoldError as error:
            raise FoldError(f"layer '{name}': {error}") from error
    if done == 0:
        raise FoldError("nothing to fuse: no convolution or linear is followed by a batch norm")
    if isinstance(fused, Network):
        fused.transforms += ("fuse_conv_bn",)
    return fused


def _fuse_children(module: nn.Module) -> int:
    """Fuse, in place, what directly follows each other inside a module; how often."""
    if isinstance(module, SpikingLayer):
        pairs = [("connection", "norm")]
    elif isinstance(module, nn.Sequential):
        names = [name for name, _ in module.named_children()]
        pairs = list(itertools.pairwise(names))
    else:
        return 0
    done = 0
    for first, second in pairs:
        connection, norm = getattr(module, first), getattr(module, second)
        if isinstance(connection, Connection) and isinstance(norm, _BatchNorm):
            setattr(module, first, fuse(connection, norm))
            setattr(module, second, nn.Identity())
            done += 1
    return done
