"""A network's calls, recorded once for one shape and run again without any checks in between.

torch's own tracer (`make_fx`) writes down which operators a network runs on an example. Of these,
layers of neurons and pools get kernels with their outputs' memory (`PreparedLayer`,
`PreparedPool`), views of memory that stays are taken once, and those that change nothing are left
out. What remains is straight code: convolutions, kernels.
"""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.modules.batchnorm import _NormBase
from torch.utils._pytree import tree_map_only

from spikefold import dynamics
from spikefold.dynamics import PreparedLayer, PreparedPool
from spikefold.errors import ConfigError, ShapeError
from spikefold.nn import Norm, attached


class Prepared:
    """A network ready for inputs of one shape; `prepare` makes it.

    Attributes:
        network: whose tensors it reads: values changed in place count, and nothing else does.
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self.network = network
        self._shape, self._stride = example.shape, example.stride()
        self._kind = (example.dtype, example.device)
        self._autocast = torch.is_autocast_enabled(example.device.type)
        with torch.inference_mode():
            self._run, self._constants = _straight(network, example)
        self._lock = threading.Lock()  # for the memory that is written to

    def __call__(self, x: Float[Tensor, "..."]) -> Any:
        """What the network gives, without a gradient.

        Arguments:
            x: of the example's shape, dtype and device.

        Raises:
            ShapeError: if it has another shape.
            ConfigError: if something else differs from the preparation.
        """
        if x.shape != self._shape:
            raise ShapeError(
                f"a network prepared for inputs {list(self._shape)} got {list(x.shape)}: prepare "
                "it for these as well"
            )
        self._check(x)
        if x.stride() != self._stride:
            x = torch.empty_strided(
                self._shape, self._stride, dtype=x.dtype, device=x.device
            ).copy_(x)
        with self._lock:
            with torch.inference_mode():
                result = self._run(x, *self._constants)
            # a copy: the next call writes over this one's memory
            return result.clone() if isinstance(result, Tensor) else _copied(result)

    def _check(self, x: Tensor) -> None:
        if (x.dtype, x.device) != self._kind:
            raise ConfigError(
                f"a network prepared for {self._kind[0]} on {self._kind[1]} got {x.dtype} on "
                f"{x.device}"
            )
        if self.network.training:
            raise ConfigError("a prepared network is for evaluation: call eval()")
        if torch.is_autocast_enabled(x.device.type) != self._autocast:
            raise ConfigError("prepared with autocast and called without, or the other way round")
        if dynamics.is_looked_on((x,)) or torch._C._functorch.maybe_current_level() is not None:
            raise ConfigError("a prepared network runs in plain eager mode: compile the network")


def _copied(result: Any) -> Any:
    return tree_map_only(Tensor, torch.clone, result)


def prepare(network: nn.Module, example: Float[Tensor, "..."]) -> Prepared:
    """Prepare a network for inference on inputs of one shape: the same results, faster.

    What it calls for the example is recorded, and run again without modules, checks and
    allocations of spikes. Fold and fuse first. It holds the memory of all spikes of a call, and is
    a snapshot: of later changes only those of values in place (`load_state_dict`) count, and
    `backend` and observers do not.

    Arguments:
        network: any module of one input, in evaluation mode.
        example: an input; its values do not matter.

    Returns:
        a callable: what the network gives for an input that lies in memory as the example does, to
        the bit.

    Raises:
        ConfigError: if the network is in training mode, carries hooks, or what it calls depends on
            values.

    Example:
        >>> import torch, spikefold as sf
        >>> network = sf.fold(sf.models.small(in_channels=1, steps=4).eval())
        >>> images = torch.rand(1, 1, 8, 8)
        >>> ready = sf.prepare(network, images)
        >>> torch.equal(ready(images), network(images))
        True
    """
    if not isinstance(example, Tensor):
        raise ConfigError(f"prepare: the example must be a tensor, got {type(example).__name__}")
    for name, module in network.named_modules():
        place = f"'{name}' ({type(module).__name__})" if name else type(module).__name__
        if module.training and (module is network or isinstance(module, _NormBase | Norm)):
            raise ConfigError(f"prepare: {place} is in training mode: call eval() first")
        what = attached(module)
        if what:
            raise ConfigError(f"prepare: {place} carries {what}, which would not be called")
    return Prepared(network, example.detach().clone())


# ------------------------------------------------------------------ straight code

# The same functions by a faster way than `torch.ops`, which adds some microseconds to each call.
_BINDINGS: dict[Any, Callable[..., Any]] = {
    torch.ops.aten.convolution.default: torch.convolution,
    torch.ops.aten.addmm.default: torch.addmm,
    torch.ops.aten.add.Tensor: torch.add,
    torch.ops.aten.mean.dim: torch.mean,
    torch.ops.aten.avg_pool2d.default: torch.nn.functional.avg_pool2d,
    torch.ops.aten.view.default: torch.Tensor.view,
}

LAST = 1  # potential, of a layer's outputs
_AVERAGE = torch.nn.functional.avg_pool2d


@fx.node.has_side_effect
def _write(prepared: Callable[..., None], *tensors: Tensor | None) -> None:
    prepared(*tensors)


def _straight(network: nn.Module, example: Tensor) -> tuple[Callable[..., Any], list[Any]]:
    """What a network calls, as a function of the input and of constants; and these."""
    try:
        traced = make_fx(network)(example)
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"prepare: this network cannot be recorded: {reason}") from error
    constants = _Recorded(traced, example).constants
    traced.graph.eliminate_dead_code()
    for unused in [node for node in constants if not node.users]:
        traced.graph.erase_node(unused)
        del constants[unused]
    return fx.GraphModule(nn.Module(), traced.graph).forward, list(constants.values())


class _Recorded:
    """The recorded calls one after another, made simpler on the way.

    Attributes:
        constants: what they take besides the input, by placeholder, in order.
    """

    def __init__(self, traced: fx.GraphModule, example: Tensor) -> None:
        self.constants: dict[fx.Node, Any] = {}
        self._graph = traced.graph
        self._last = next(iter(traced.graph.nodes))  # of the placeholders
        self._values: dict[fx.Node, Any] = {self._last: example}
        self._seen: dict[fx.Node, fx.Node] = {}  # views, and what they are views of
        for node in traced.graph.nodes:  # this goes on behind what is erased
            if node.op == "get_attr":
                self._replace(node, self._as_constant(getattr(traced, node.target)))
            elif node.target is torch.ops.spikefold.layer.default:
                self._layer(node)
            elif node.op == "call_function":
                self._call(node)
                plain = node.target is _AVERAGE and not node.kwargs
                if plain and PreparedPool.takes(*self._of(node.args)):
                    self._pool(node)

    def _call(self, node: fx.Node) -> None:
        function: Any = node.target
        value = function(*self._of(node.args), **self._of(node.kwargs))
        self._values[node] = value
        node.target = _BINDINGS.get(function, function)
        if not (getattr(function, "is_view", False) and isinstance(value, Tensor)):
            return
        self._seen[node] = source = node.all_input_nodes[0]
        if source in self.constants:
            self._replace(node, self._as_constant(value))
            return
        for other in self._behind(node):
            if _geometry(value) == _geometry(self._values[other]):
                self._replace(node, other)
                return

    def _behind(self, node: fx.Node) -> Iterator[fx.Node]:
        """What a node is a view of, and that of, as far as it begins at the same address."""
        address, behind = self._values[node].data_ptr(), self._seen.get(node)
        while behind is not None and self._values[behind].data_ptr() == address:
            yield behind
            behind = self._seen.get(behind)

    def _layer(self, node: fx.Node) -> None:
        used = {taken.args[1] for taken in node.users if taken.users}
        layer = PreparedLayer(*self._of(node.args), last=LAST in used)
        given = [self._changing(arg, layer) for arg in node.args[: layer.tensors]]
        while given and given[-1] is None:
            given.pop()
        layer.expect(*self._of(given))
        with self._graph.inserting_before(node):
            self._graph.call_function(_write, (self._as_constant(layer), *given))
        for taken in list(node.users):  # each of its outputs
            place: Any = taken.args[1]
            self._replace(taken, self._as_constant(layer.outputs[place]))
        self._graph.erase_node(node)

    def _pool(self, node: fx.Node) -> None:
        x: Any = node.args[0]
        pool = PreparedPool(self._values[x])
        given = () if x in self.constants else (x,)
        with self._graph.inserting_before(node):
            self._graph.call_function(_write, (self._as_constant(pool), *given))
        self._replace(node, self._as_constant(pool.output))

    def _changing(self, arg: Any, layer: PreparedLayer) -> fx.Node | None:
        """Where a layer's tensor comes from in each call; None if it stays."""
        if not isinstance(arg, fx.Node) or arg in self.constants:
            return None
        return [arg, *self._behind(arg)][-1 if layer.as_they_are else 0]

    def _of(self, arguments: Any) -> Any:
        return fx.node.map_arg(arguments, self._values.__getitem__)

    def _as_constant(self, value: Any) -> fx.Node:
        with self._graph.inserting_after(self._last):
            self._last = self._graph.placeholder(f"constant_{len(self.constants)}")
        self.constants[self._last] = self._values[self._last] = value
        return self._last

    def _replace(self, node: fx.Node, other: fx.Node) -> None:
        node.replace_all_uses_with(other)
        self._graph.erase_node(node)


def _geometry(x: Tensor) -> tuple[Any, ...]:
    return x.shape, x.stride(), x.dtype
