"""Fusion of a batch normalization into the convolution or linear layer before it."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.errors import ConfigError, FoldError, ShapeError
from spikefold.graphs import MODULES, Graph, Place, graphs
from spikefold.nn import (
    BATCH_NORMS,
    CurrentNorm,
    SpikingLayer,
    copied,
    is_called,
    replaced,
    strange,
    transformed,
)

ModelT = TypeVar("ModelT", bound=nn.Module)
Connection = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@torch.no_grad()
def fuse(connection: Connection, norm: _BatchNorm | CurrentNorm) -> Connection:
    """One layer that computes norm(connection(x)) of evaluation, up to rounding.

        weight' = weight · scale;  bias' = (bias - mean) · scale + beta;
        scale = gamma / sqrt(variance + eps)

    Arguments:
        connection: convolution or linear; not changed.
        norm: batch normalization with running statistics, or one of the currents with one map for
            all steps.

    Raises:
        FoldError: if the normalization keeps no running statistics, they are not finite, or the
            sizes do not fit.
    """
    mean, variance, gain, shift, eps = _map(norm)
    if len(connection.weight) != mean.numel():
        raise FoldError(
            f"{len(connection.weight)} channels go into a batch normalization of "
            f"{mean.numel()}: it normalizes another dimension"
        )
    # in float64, so that the new weights are rounded once
    mean, variance = mean.double(), variance.double()
    if not bool((torch.isfinite(mean) & torch.isfinite(variance)).all()):
        raise FoldError("running statistics of the batch normalization are NaN or infinite")
    scale = (variance + eps).rsqrt() * gain.double()
    bias = -mean if connection.bias is None else connection.bias.double() - mean
    bias = bias * scale + shift.double()
    weight = connection.weight.double() * scale.reshape(-1, *(1,) * (connection.weight.ndim - 1))
    fused = copy.deepcopy(connection)
    fused.weight.copy_(weight)
    trains = connection.weight if connection.bias is None else connection.bias
    fused.bias = nn.Parameter(bias.to(connection.weight.dtype), requires_grad=trains.requires_grad)
    return fused


def _map(norm: _BatchNorm | CurrentNorm) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    """Mean, variance, gain and shift `[C]` in evaluation, and eps."""
    if isinstance(norm, CurrentNorm):
        found = _one_map(copy.deepcopy(norm).eval())
        if found is None:
            raise FoldError("the normalization has no running statistics, or a map for each step")
        return found
    if norm.running_mean is None or norm.running_var is None:
        raise FoldError("the batch normalization keeps no running statistics")
    ones, zeros = torch.ones_like(norm.running_mean), torch.zeros_like(norm.running_mean)
    gain, shift = (norm.weight, norm.bias) if norm.affine else (ones, zeros)
    return norm.running_mean, norm.running_var, gain, shift, norm.eps


def _one_map(norm: CurrentNorm) -> tuple[Tensor, Tensor, Tensor, Tensor, float] | None:
    """The same of a norm of the currents, if it does no more and treats all steps alike."""
    if norm.steps is not None or is_called(norm):
        return None
    now = norm.normalization()
    if now.fixed is None:
        return None
    parameters = (*now.fixed, now.gain, now.shift)
    if any(len(parameter) != 1 for parameter in parameters):
        return None
    mean, variance, gain, shift = (parameter[0] for parameter in parameters)
    return mean, variance, gain, shift, now.eps


def _may_fuse(norm: nn.Module | None) -> bool:
    """Whether it is a batch norm, or a norm of the currents that is one map; others stay."""
    if isinstance(norm, CurrentNorm):
        return _one_map(norm) is not None
    return isinstance(norm, _BatchNorm)


def fuse_shapes(connection: Connection, norm: nn.Module) -> Connection:
    """What `fuse` makes of a layer, without the values: a bias is there."""
    fused = copy.deepcopy(connection)
    if fused.bias is None:
        trains = connection.weight.requires_grad
        fused.bias = nn.Parameter(connection.weight.new_zeros(len(connection.weight)), trains)
    return fused


# What computes `fuse`'s formula, by exact type: a subclass may do more. To fuse a type of your own,
# enter a function (connection, norm) -> connection; if it is not a subclass of torch's, also enter
# its kind in `graphs.MODULES`.
FUSIONS: dict[type[nn.Module], Callable[[Any, Any], nn.Module]] = dict.fromkeys(
    (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear), fuse
)


class Features(nn.Module):
    """Replaces a batch norm that was fused into a linear layer: lets `[N, F]` pass.

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


MODULES[Features] = "identity"  # `graph` does not look into it


def fuse_conv_bn(model: ModelT) -> ModelT:
    """A new model in which the batch normalization after each convolution is part of it.

    Follows the network (`sf.graph`), in units, rows and modules of your own: fused is a batch norm
    that takes what a convolution gives, where nothing else takes it. Unlike the fold this changes
    rounding, so a few spikes may differ: `verify(model, fused, batches)` tells how many, and what
    that does to the accuracy.

    Only what is known is fused: exact types of `FUSIONS` with torch's own batch norms, or with a
    `CurrentNorm` that has one map for all steps (`TdBN`). Maps of each step (`BNTT`, `TEBN`, `TAB`)
    stay: a multiplication and two additions a neuron and step, in the neurons' own kernel.

    Arguments:
        model: trained network, folded or not; not changed.

    Returns:
        the fused network, in evaluation mode.

    Raises:
        FoldError: if nothing is to be fused, or statistics are not finite; if a convolution or a
            batch norm behind it is a subclass, carries hooks or is parametrized (the layer is
            named); if a module that holds a batch norm cannot be followed.
    """
    return _fuse_all(model, lambda connection, norm: FUSIONS[type(connection)](connection, norm))


def is_fusable(model: nn.Module) -> bool:
    """Whether `fuse_conv_bn` finds anything to fuse.

    Arguments:
        model: in evaluation mode.

    Raises:
        FoldError: if a module that holds a batch norm cannot be followed.
    """
    return bool(_pairs(model))


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
    made: dict[_Slot, nn.Module] = {}
    for connection, norm in _pairs(fused):
        first, second = _module(connection), _module(norm)
        if connection in made:
            continue
        try:
            _require_known(first, second)
            made[connection] = fusion(first, second)
        except FoldError as error:
            raise FoldError(f"layer '{_where(fused, connection)}': {error}") from error
        linear = isinstance(made[connection], nn.Linear)
        made[norm] = Features() if linear else nn.Identity()
    if not made:
        raise FoldError("nothing to fuse: no convolution or linear is followed by a batch norm")
    for slot, module in made.items():
        if isinstance(slot, Place):
            slot.owner._modules[slot.name] = module
        else:
            replaced(fused, {id(slot): module})
    return transformed(fused, "fuse_conv_bn")


# What is replaced: a module at one place if it is only called by the names of its places, else the
# module wherever it stands.
_Slot = Place | nn.Module


def _module(slot: _Slot) -> nn.Module:
    return slot.module if isinstance(slot, Place) else slot


def _where(model: nn.Module, slot: _Slot) -> str:
    """The unit of a connection by name, else the connection."""
    unit = isinstance(slot, Place) and isinstance(slot.owner, SpikingLayer)
    wanted = slot.owner if unit else _module(slot)
    return next(path for path, module in model.named_modules() if module is wanted)


def _pairs(model: nn.Module) -> list[tuple[_Slot, _Slot]]:
    """Each connection, all of whose results go into one batch norm that takes no others."""
    followed, opaque = graphs(model)
    for module, error in opaque:
        for name, child in module.named_children():
            if isinstance(child, _BatchNorm):
                raise FoldError(f"{error}; so what its batch norm '{name}' follows is not known")
    calls = [node.place for graph in followed for node in graph.nodes if node.place is not None]
    loose = {place.module for place in calls if not place.exact}

    def slot(place: Place) -> _Slot:
        return place.module if place.module in loose else place

    pairs = [
        (slot(first), slot(second)) for graph in followed for first, second in _neighbours(graph)
    ]
    called = Counter(map(slot, calls))
    while True:
        together, norms = Counter(pairs), Counter(norm for _, norm in pairs)
        kept = [
            (connection, norm)
            for connection, norm in pairs
            if together[connection, norm] == called[connection] and norms[norm] == called[norm]
        ]
        if len(kept) == len(pairs):
            return pairs
        pairs = kept


def _neighbours(graph: Graph) -> Iterator[tuple[Place, Place]]:
    """Calls of a connection and of the batch norm that alone takes its result."""
    for norm in graph.nodes:
        if norm.place is None or not _may_fuse(norm.module):
            continue
        connection = graph[norm.inputs[0]]
        if connection.place is None or len(graph.users(connection)) > 1:
            continue
        if isinstance(connection.module, tuple(FUSIONS)):
            yield connection.place, norm.place


def _require_known(connection: nn.Module, norm: nn.Module) -> None:
    """Refuse what would compute something else once it is fused."""
    norms = {*BATCH_NORMS, nn.SyncBatchNorm}
    if isinstance(norm, CurrentNorm):
        norms.add(type(norm))
    for module, known in ((connection, FUSIONS), (norm, norms)):
        problem = strange(module)
        if problem is None and type(module) not in known:
            problem = "a subclass may compute something else"
        if problem is not None:
            raise FoldError(f"{type(module).__name__} cannot be fused: {problem}")
