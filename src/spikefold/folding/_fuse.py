"""Fusion of a batch normalization into the convolution or linear layer before it."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikefold.errors import ConfigError, FoldError, ShapeError
from spikefold.folding._affine import Maps, affine, affine_shape, is_one, maps_of, scale_and_shift
from spikefold.graphs import MODULES, Graph, Place, graphs
from spikefold.nn import (
    BATCH_NORMS,
    CurrentAffine,
    CurrentNorm,
    SpikingLayer,
    attached,
    copied,
    replaced,
    strange,
    transformed,
)

ModelT = TypeVar("ModelT", bound=nn.Module)
Connection = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
# What is replaced: a module at one place if it is only called by the names of its places, else the
# module wherever it stands.
_Slot = Place | nn.Module
Pairs = list[tuple[_Slot, _Slot]]


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
    known = _map(norm)
    if len(connection.weight) != known.mean.numel():
        raise FoldError(
            f"{len(connection.weight)} channels go into a batch normalization of "
            f"{known.mean.numel()}: it normalizes another dimension"
        )
    scale, bias = scale_and_shift(known, connection.bias)
    weight = connection.weight.double() * scale.reshape(-1, *(1,) * (connection.weight.ndim - 1))
    fused = copy.deepcopy(connection)
    fused.weight.copy_(weight)
    trains = connection.weight if connection.bias is None else connection.bias
    fused.bias = nn.Parameter(bias.to(connection.weight.dtype), requires_grad=trains.requires_grad)
    return fused


def _map(norm: _BatchNorm | CurrentNorm) -> Maps:
    """Of all steps alike: `[C]`."""
    if isinstance(norm, CurrentNorm):
        found = maps_of(copy.deepcopy(norm).eval())
        if found is None or not is_one(found):
            raise FoldError("the normalization has no running statistics, or a map for each step")
        mean, variance, gain, shift = (value[0] for value in found[:4])
        return Maps(mean, variance, gain, shift, found.eps)
    if norm.running_mean is None or norm.running_var is None:
        raise FoldError("the batch normalization keeps no running statistics")
    ones, zeros = torch.ones_like(norm.running_mean), torch.zeros_like(norm.running_mean)
    gain, shift = (norm.weight, norm.bias) if norm.affine else (ones, zeros)
    return Maps(norm.running_mean, norm.running_var, gain, shift, norm.eps)


def _may_fuse(norm: nn.Module | None) -> bool:
    """Whether it is a batch norm, or a norm of the currents that is one map; others stay."""
    if isinstance(norm, CurrentNorm):
        maps = maps_of(norm)
        return maps is not None and norm.steps is None and is_one(maps)
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
    `CurrentNorm` that has one map for all steps (`TdBN`). Any other `CurrentNorm`, such as those
    with a map of each step (`BNTT`, `TEBN`, `TAB`), becomes a `CurrentAffine`: a multiplication and
    an addition a neuron and step, in the neurons' own kernel; with a `forward` of its own it stays.

    Arguments:
        model: trained network, folded or not; not changed.

    Returns:
        the fused network, in evaluation mode.

    Raises:
        FoldError: if nothing is to be fused, or statistics are not finite; if a convolution or a
            batch norm behind it is a subclass, carries hooks or is parametrized, or a `CurrentNorm`
            carries hooks (the layer is named); if a module that holds a batch norm cannot be
            followed.
    """
    fused = _copied(model)
    pairs, others = _found(fused)
    if not (pairs or others):
        raise FoldError("nothing to fuse: no convolution or linear is followed by a batch norm")
    if pairs:
        _fuse(fused, pairs, lambda connection, norm: FUSIONS[type(connection)](connection, norm))
    return _make_affine(fused, others, affine) if others else fused


def is_fusable(model: nn.Module) -> bool:
    """Whether `fuse_conv_bn` finds anything to fuse.

    Arguments:
        model: in evaluation mode.

    Raises:
        FoldError: if a module that holds a batch norm cannot be followed.
    """
    return any(_found(model))


def fuse_conv_bn_shapes(model: ModelT) -> ModelT:
    """What `fuse_conv_bn` makes of connections and norms, without the values: to be loaded into.

    Arguments:
        model: as for `fuse_conv_bn`; may lie on the meta device.
    """
    fused = _copied(model)
    return _fuse(fused, _found(fused)[0], fuse_shapes)


def affine_shapes(model: ModelT) -> ModelT:
    """The same of what it makes of norms alone, once connections are fused."""
    fused = _copied(model)
    return _make_affine(fused, _found(fused)[1], affine_shape)


def _copied(model: ModelT) -> ModelT:
    try:
        return copied(model).eval()
    except ConfigError as error:
        raise FoldError(f"fuse_conv_bn: {error}") from error


def _fuse(fused: ModelT, pairs: Pairs, fusion: Callable[[Any, Any], nn.Module]) -> ModelT:
    made: dict[_Slot, nn.Module] = {}
    for connection, norm in pairs:
        first, second = _module(connection), _module(norm)
        if connection in made:
            continue
        with _naming(fused, connection):
            _require_known(first, second)
            made[connection] = fusion(first, second)
        linear = isinstance(made[connection], nn.Linear)
        made[norm] = Features() if linear else nn.Identity()
    return transformed(_put(fused, made), "fuse_conv_bn")


def _make_affine(fused: ModelT, norms: list[_Slot], make: Callable[[Any], nn.Module]) -> ModelT:
    made: dict[_Slot, nn.Module] = {}
    for slot in norms:
        norm = _module(slot)
        with _naming(fused, slot):
            if attached(norm) is not None:
                raise FoldError(f"{type(norm).__name__} cannot be fused: {strange(norm)}")
            made[slot] = make(norm)
    return transformed(_put(fused, made), "affine_currents")


def _put(model: ModelT, made: dict[_Slot, nn.Module]) -> ModelT:
    """Put modules where others stand."""
    for slot, module in made.items():
        if isinstance(slot, Place):
            slot.owner._modules[slot.name] = module
        else:
            replaced(model, {id(slot): module})
    return model


def _module(slot: _Slot) -> nn.Module:
    return slot.module if isinstance(slot, Place) else slot


@contextmanager
def _naming(model: nn.Module, slot: _Slot) -> Iterator[None]:
    """Say in which layer something is wrong."""
    try:
        yield
    except FoldError as error:
        raise FoldError(f"layer '{_where(model, slot)}': {error}") from error


def _where(model: nn.Module, slot: _Slot) -> str:
    """The unit of a connection or norm by name, else itself."""
    unit = isinstance(slot, Place) and isinstance(slot.owner, SpikingLayer)
    wanted = slot.owner if unit else _module(slot)
    return next(path for path, module in model.named_modules() if module is wanted)


def _found(model: nn.Module) -> tuple[Pairs, list[_Slot]]:
    """What is to be fused: connections and norms together, and norms of the currents alone.

    Together are a connection, all of whose results go into one norm, and that norm, if it takes no
    others.
    """
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
            break
        pairs = kept
    fused = {norm for _, norm in pairs}
    alone = dict.fromkeys(slot(place) for place in calls if _is_affine(place.module))
    return pairs, [norm for norm in alone if norm not in fused]


def _is_affine(norm: nn.Module) -> bool:
    """Whether it is a norm of the currents to be made simpler, or refused for its hooks."""
    if not isinstance(norm, CurrentNorm) or isinstance(norm, CurrentAffine):
        return False
    return attached(norm) is not None or maps_of(norm) is not None


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
