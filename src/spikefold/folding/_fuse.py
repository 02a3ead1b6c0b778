"""Fusion of a batch normalization into the convolution or linear layer before it."""

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.errors import ConfigError, FoldError, ShapeError
from spikefold.models import Network
from spikefold.nn import BATCH_NORMS, OverTime, SpikingLayer, copied, strange

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
        FoldError: if the normalization keeps no running statistics, they are not finite, or the
            sizes do not fit.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise FoldError("the batch normalization keeps no running statistics")
    if len(connection.weight) != norm.num_features:
        raise FoldError(
            f"{len(connection.weight)} channels go into a batch normalization of "
            f"{norm.num_features}: it normalizes another dimension"
        )
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
    trains = connection.weight if connection.bias is None else connection.bias
    fused.bias = nn.Parameter(bias.to(connection.weight.dtype), requires_grad=trains.requires_grad)
    return fused


def fuse_shapes(connection: Connection, norm: _BatchNorm) -> Connection:
    """What `fuse` makes of a layer, without the values: a bias is there."""
    fused = copy.deepcopy(connection)
    if fused.bias is None:
        trains = connection.weight.requires_grad
        fused.bias = nn.Parameter(connection.weight.new_zeros(len(connection.weight)), trains)
    return fused


# What computes `fuse`'s formula, by exact type: a subclass may do more. To fuse a type of your own,
# enter a function (connection, norm) -> connection.
FUSIONS: dict[type[nn.Module], Callable[[Any, Any], nn.Module]] = dict.fromkeys(
    (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear), fuse
)
# Whose children run one after another, and how.
_ROWS: dict[type[nn.Module], Callable[[nn.Module], Iterator[tuple[str, str]]]] = {
    SpikingLayer: lambda layer: iter([("connection", "norm")]),
    OverTime: lambda row: itertools.pairwise(row._modules),
    nn.Sequential: lambda row: itertools.pairwise(row._modules),
}


class Features(nn.Module):
    """In the place of a batch norm that was fused into a linear layer: `[N, F]` passes.

    Of `[N, C, L]` the batch norm would have normalized C, while the linear layer made L.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The same.

        Raises:
            ShapeError: if x is not `[N, F]`.
        """
        if x.ndim != 2:
            raise ShapeError(
                f"a batch norm was fused into the linear layer before it, for [N, F], but it "
                f"gets {list(x.shape)}, where it would have normalized another dimension"
            )
        return x


def fuse_conv_bn(model: ModelT) -> ModelT:
    """A new model in which the batch normalization after each convolution is part of it.

    Works on the units (`SpikingLayer`) and on sequences (such as projecting shortcuts). Unlike
    the fold this changes rounding, so a few spikes may differ: `verify(model, fused, batches)`
    tells how many, and what that does to the accuracy.

    Only what is known is fused: exact types of `FUSIONS` with torch's own batch norms.

    Arguments:
        model: trained network, folded or not; left as it is.

    Returns:
        the fused network, in evaluation mode.

    Raises:
        FoldError: if nothing is to be fused, or statistics are not finite; if a convolution or a
            batch norm behind it is a subclass, carries hooks or is parametrized (the layer is
            named).
    """
    return _fuse_all(model, lambda connection, norm: FUSIONS[type(connection)](connection, norm))


def fuse_conv_bn_shapes(model: ModelT) -> ModelT:
    """What `fuse_conv_bn` makes of a network, without the values: to be loaded into.

    Arguments:
        model: as for `fuse_conv_bn`; may lie on the meta device.
    """
    return _fuse_all(model, fuse_shapes)


def _fuse_all(model: ModelT, fusion: Callable[[Any, Any], nn.Module]) -> ModelT:
    try:
        fused = copied(model).eval()
    except ConfigError as error:
        raise FoldError(f"fuse_conv_bn: {error}") from error
    pairs = [
        (container, container_name, *names)
        for container_name, container in fused.named_modules()
        for names in _pairs(container)
    ]
    for container, container_name, first, second in pairs:
        unit = isinstance(container, SpikingLayer)
        where = container_name if unit else f"{container_name}.{first}".lstrip(".")
        connection, norm = container._modules[first], container._modules[second]
        assert connection is not None
        assert norm is not None
        try:
            _require_known(container, connection, norm)
            made = fusion(connection, norm)
        except FoldError as error:
            raise FoldError(f"layer '{where}': {error}") from error
        container._modules[first] = made
        container._modules[second] = Features() if isinstance(made, nn.Linear) else nn.Identity()
    if not pairs:
        raise FoldError("nothing to fuse: no convolution or linear is followed by a batch norm")
    if isinstance(fused, Network):
        fused.transforms += ("fuse_conv_bn",)
    return fused


def _pairs(container: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of a connection and the batch norm right behind it, among a module's children."""
    for kind, pairs in _ROWS.items():
        if isinstance(container, kind):
            for first, second in pairs(container):
                connection, norm = container._modules[first], container._modules[second]
                known = tuple(FUSIONS)
                if isinstance(connection, known) and isinstance(norm, _BatchNorm):
                    yield first, second
            return


def _require_known(container: nn.Module, connection: nn.Module, norm: nn.Module) -> None:
    """Refuse what would compute something else once it is fused."""
    kind = next(kind for kind in _ROWS if isinstance(container, kind))
    if type(container).forward is not kind.forward or "forward" in vars(container):
        raise FoldError(
            f"it stands in a {type(container).__name__} with a forward of its own, of which it is "
            "not known what follows what"
        )
    for module, known in ((connection, FUSIONS), (norm, {*BATCH_NORMS, nn.SyncBatchNorm})):
        problem = strange(module)
        if problem is None and type(module) not in known:
            problem = "of a subclass it is not known what it computes"
        if problem is not None:
            raise FoldError(f"{type(module).__name__} cannot be fused: {problem}")
