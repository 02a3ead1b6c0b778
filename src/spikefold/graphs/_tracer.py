"""Records what a network calls, with torch.fx: our modules and torch's own as leaves."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn

from spikefold.errors import ConfigError, GraphError
from spikefold.graphs._kinds import kind_of_module
from spikefold.nn import CurrentNorm, OverTime, SpikingLayer, attached, over_time


@dataclass(frozen=True)
class Place:
    """The place of a called module: attribute `name` of `owner`.

    `exact` tells that the call goes by this very name (in rows and units); else `name` is the first
    of those that the module has.
    """

    owner: nn.Module
    name: str
    exact: bool

    @property
    def module(self) -> nn.Module:
        """The module."""
        module = self.owner._modules[self.name]
        assert module is not None
        return module


class Root(nn.Module):
    """Calls the network, so that its own hooks, forward and defaults are recorded too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x)
        return result


class Tracer(fx.Tracer):
    """Leaves are modules of a known kind; units and rows are looked into, name by name.

    Nodes carry in `meta`: "scope", the path of the innermost module that was looked into; "merged",
    whether time is merged into the batch there; for modules "path" and "place".
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix
        self.scopes = [prefix]
        self.merged = False
        self.expected: tuple[nn.Module, Place, str] | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return kind_of_module(m) is not None

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        node = super().create_node(*args, **kwargs)
        node.meta |= {"scope": self.scopes[-1], "merged": self.merged}
        return node

    def create_proxy(self, kind: str, target: Any, args: Any, *rest: Any, **kwargs: Any) -> Any:
        if target is over_time:
            module, x = args
            with self._merging():
                return module(x)
        return super().create_proxy(kind, target, args, *rest, **kwargs)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        place, path = self._whereabouts(m)
        if self.is_leaf_module(m, path):
            made = super().call_module(m, forward, args, kwargs)
            made.node.meta |= {"path": path, "place": place}
            return made
        self.scopes.append(path)
        try:
            plain = None if attached(m) else _ROWS.get(type(m).forward)
            return plain(self, m, *args, **kwargs) if plain else forward(*args, **kwargs)
        except GraphError:
            raise
        except Exception as error:
            # the first sentence: torch.fx goes on about its documentation
            reason = " ".join(str(error).split()).partition(". ")[0] or type(error).__name__
            raise GraphError.at(
                path, f"{_called(path)} ({type(m).__name__}) cannot be followed: {reason}"
            ) from error
        finally:
            self.scopes.pop()

    def child(self, owner: nn.Module, name: str, x: Any) -> Any:
        """Call a child under the name it has here: it may have several in a network."""
        place = Place(owner, name, exact=True)
        self.expected = place.module, place, f"{self.scopes[-1]}.{name}".lstrip(".")
        return place.module(x)

    def _whereabouts(self, module: nn.Module) -> tuple[Place, str]:
        expected, self.expected = self.expected, None
        if expected is not None and expected[0] is module:
            return expected[1:]
        try:
            path = self.path_of_module(module)
        except NameError as error:
            raise ConfigError(
                f"it calls a {type(module).__name__} that is not among its modules: make it an "
                "attribute or an element of a ModuleList"
            ) from error
        owner, _, name = path.rpartition(".")
        path = (self.prefix + path.removeprefix("model")).lstrip(".")
        return Place(self.root.get_submodule(owner), name, exact=False), path

    @contextmanager
    def _merging(self) -> Iterator[None]:
        before, self.merged = self.merged, True
        try:
            yield
        finally:
            self.merged = before


def _row(tracer: Tracer, row: nn.Module, x: Any) -> Any:
    for name in row._modules:
        x = tracer.child(row, name, x)
    return x


def _row_over_time(tracer: Tracer, row: nn.Module, x: Any) -> Any:
    with tracer._merging():
        return _row(tracer, row, x)


def _unit(tracer: Tracer, unit: nn.Module, x: Any, shortcut: Any = None) -> Any:
    with tracer._merging():
        y = tracer.child(unit, "connection", x)
    # a norm that knows time sees it apart
    knows_time = isinstance(unit._modules["norm"], CurrentNorm)
    with nullcontext() if knows_time else tracer._merging():
        y = tracer.child(unit, "norm", y)
    return tracer.child(unit, "lif", y if shortcut is None else y + shortcut)


# Modules taken apart into the calls they make, by their forward: a subclass may have another.
_ROWS: dict[Callable[..., Any], Callable[..., Any]] = {
    nn.Sequential.forward: _row,
    OverTime.forward: _row_over_time,
    SpikingLayer.forward: _unit,
}


def _called(path: str) -> str:
    return f"module '{path}'" if path else "the network itself"
