"""Networks by parts: modules by name, and whose results each takes. NIR graphs become such."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold.data import InputSpec
from spikefold.dynamics import Condition, Neuron, backend
from spikefold.errors import ConfigError
from spikefold.models._arguments import Arguments
from spikefold.models._network import Network, as_frames
from spikefold.nn import LIF, FoldedLIF, OverTime, States, Stream, require_evaluation
from spikefold.plain import from_plain, to_plain


class Scale(nn.Module):
    """Multiplies by a number each.

    Arguments:
        scale: of the shape of one sample.
    """

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, ...]` to the same shape."""
        return x * self.scale


class NIRNetwork(nn.Module):
    """What a NIR graph computes, node by node; what meets in a node is added.

    Arguments:
        parts: by name of the node, each for `[T, N, ...]`, in an order in which they can run.
        sources: of each part, those whose results it takes; "" is the network's input.
        last: those whose results are the network's.

    Attributes:
        shape: of one sample of its input at one time step, where it is known.
        input_spec: how files become its input, and the names of its classes, where they are known.
    """

    def __init__(
        self, parts: dict[str, nn.Module], sources: dict[str, list[str]], last: list[str]
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.sources = sources
        self.last = last
        self.shape: tuple[int, ...] | None = None
        self.input_spec: InputSpec | None = None

    def forward(self, x: Float[Tensor, "T N ..."]) -> Float[Tensor, "T N ..."]:
        """What the graph gives at each time step, from rest.

        Arguments:
            x: `[T, N, ...]`.
        """
        return self._run(x, lambda name, part, y: part(y))

    def step(
        self, x: Float[Tensor, "N ..."], state: States | None = None
    ) -> tuple[Float[Tensor, "N ..."], States]:
        """One time step of a stream, in evaluation.

        Arguments:
            x: `[N, ...]` of this step.
            state: what the step before returned, by name of the neurons; None starts at rest.

        Returns:
            what the graph gives at this step, and the state to hand to the next.

        Raises:
            ConfigError: in training mode, or for another's state.
        """
        require_evaluation(self)
        stream = Stream(state)
        y = self._run(x, lambda name, part, y: stream.step(f"parts.{name}", part, y))
        return y, stream.states()

    def _run(self, x: Tensor, call: Callable[[str, nn.Module, Tensor], Tensor]) -> Tensor:
        values = {"": x}
        for name, part in self.parts.items():
            values[name] = call(name, part, _sum(values, self.sources[name]))
        return _sum(values, self.last)


def _sum(values: dict[str, Tensor], names: list[str]) -> Tensor:
    first, *others = (values[name] for name in names)
    for other in others:
        first = first + other
    return first


class NIRModel(Network):
    """A NIR graph as the models are: from images or frames to the mean of its outputs over time.

    Arguments:
        arguments: classes, channels, size and steps; the rest says nothing of it.
        graph: gives `[K]` or `[K, 1, 1]` of a sample and step.
    """

    def __init__(self, arguments: Arguments, graph: NIRNetwork) -> None:
        nn.Module.__init__(self)  # there are no units and no readout apart
        self.name, self.arguments, self.graph = "nir", arguments, graph
        self.input_spec = graph.input_spec
        self.eval()

    def forward(self, x: Float[Tensor, "..."], steps: int | None = None) -> Float[Tensor, "N K"]:
        """Outputs, averaged over time; see `Network.forward`."""
        arguments = self.arguments
        frames = as_frames(x, steps, arguments.steps, arguments.in_channels)
        return self.graph(frames).flatten(2).mean(0)

    def step(
        self, x: Float[Tensor, "..."], state: States | None = None
    ) -> tuple[Float[Tensor, "N K"], States]:
        """One time step of a stream; see `Network.step`."""
        stream = Stream(state)
        y = stream.step("graph", self.graph, x)
        return y.flatten(1), stream.states()


@dataclass(frozen=True)
class Part:
    """One module, as plain data.

    Attributes:
        kind: of `_KINDS`.
        sources: names of the parts whose results it takes; "" is the network's input.
        settings: of the module.
    """

    kind: str
    sources: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parts:
    """A `NIRNetwork` without its tensors, as plain data.

    Attributes:
        parts: by name, in an order in which they can run.
        last: those whose results are the network's.
    """

    parts: dict[str, Part]
    last: tuple[str, ...]


def parts_of(network: NIRNetwork) -> Parts:
    """What `of_parts` rebuilds.

    Arguments:
        network: of modules as `from_nir` makes them.

    Raises:
        ConfigError: if a module is of another type.
    """
    found = {}
    for name, module in network.parts.items():
        inner = module[0] if type(module) is OverTime and len(module) == 1 else module
        kind = type(inner).__name__
        if kind not in _KINDS or type(inner) is not _KINDS[kind].type:
            raise ConfigError(f"'{name}' is a {kind}, which no NIR graph becomes")
        found[name] = Part(kind, tuple(network.sources[name]), _KINDS[kind].read(inner))
    return Parts(found, tuple(network.last))


def of_parts(parts: Parts, arguments: Arguments) -> NIRModel:
    """The model, its tensors without values, on the meta device.

    Arguments:
        parts: what `parts_of` gave.
        arguments: of the model.

    Raises:
        ConfigError: if they do not describe a network.
    """
    modules: dict[str, nn.Module] = {}
    for name, part in parts.parts.items():
        # names become code where torch.fx writes a graph down
        if not re.fullmatch(r"\w+", name, re.ASCII) or hasattr(nn.ModuleDict, name):
            raise ConfigError(f"{name!r} is no name of a part")
        _require_before(part.sources, modules)
        modules[name] = _made(name, part)
    _require_before(parts.last, modules)
    sources = {name: list(part.sources) for name, part in parts.parts.items()}
    model = NIRModel(arguments, NIRNetwork(modules, sources, list(parts.last)))
    size = (arguments.in_channels, arguments.image_size, arguments.image_size)
    try:
        with backend("reference"):
            shape = model(torch.empty(1, 1, *size, device="meta")).shape
    except Exception as error:  # torch's, of many kinds, for whatever the settings are
        raise ConfigError(f"its parts do not fit: {' '.join(str(error).split())}") from error
    if shape != (1, arguments.num_classes):
        raise ConfigError(f"its parts give {list(shape[1:])}, not {arguments.num_classes} classes")
    return model


def _require_before(names: tuple[str, ...], modules: dict[str, nn.Module]) -> None:
    for name in names:
        if name and name not in modules:
            raise ConfigError(f"there is no part {name!r} before it is taken")
    if not names:
        raise ConfigError("a part takes nothing")


def _made(name: str, part: Part) -> nn.Module:
    if part.kind not in _KINDS:
        raise ConfigError(f"part {name!r}: unknown kind {part.kind!r}")
    try:
        with torch.device("meta"):
            made = _KINDS[part.kind].make(**part.settings)
    except Exception as error:  # as above
        raise ConfigError(f"part {name!r}: {' '.join(str(error).split())}") from error
    return made if isinstance(made, LIF | FoldedLIF) else OverTime(made)


@dataclass(frozen=True)
class _Kind:
    """How a type of module becomes settings, and these a module."""

    type: type[nn.Module]
    read: Callable[[Any], dict[str, Any]]
    make: Callable[..., nn.Module]


def _by_attributes(kind: Any, *names: str, bias: bool = False) -> _Kind:
    def read(module: Any) -> dict[str, Any]:
        given = {"bias": module.bias is not None} if bias else {}
        return {name: getattr(module, name) for name in names} | given

    def make(**settings: Any) -> nn.Module:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})

    return _Kind(kind, read, make)


def _read_folded(module: FoldedLIF) -> dict[str, Any]:
    return {
        "constants": to_plain(module.constants),
        "shape": list(module.theta.shape),
        "decays": None if module.kept is None else list(module.kept.shape),
    }


def _make_folded(constants: Any, shape: list[int], decays: list[int] | None) -> FoldedLIF:
    condition = Condition(None, torch.empty(1, *shape), torch.empty(1, *shape))
    decay = None if decays is None else torch.empty(decays)
    return FoldedLIF(condition, from_plain(constants, Neuron, "constants"), decay)


_WINDOW = ("kernel_size", "stride", "padding")
_CONVOLUTION = ("in_channels", "out_channels", *_WINDOW, "dilation", "groups")
_KINDS: dict[str, _Kind] = {
    "Conv1d": _by_attributes(nn.Conv1d, *_CONVOLUTION, bias=True),
    "Conv2d": _by_attributes(nn.Conv2d, *_CONVOLUTION, bias=True),
    "Linear": _by_attributes(nn.Linear, "in_features", "out_features", bias=True),
    "AvgPool2d": _by_attributes(nn.AvgPool2d, *_WINDOW, "divisor_override"),
    "Flatten": _by_attributes(nn.Flatten, "start_dim", "end_dim"),
    "Identity": _by_attributes(nn.Identity),
    "Scale": _Kind(
        Scale, lambda m: {"shape": list(m.scale.shape)}, lambda shape: Scale(torch.empty(shape))
    ),
    "LIF": _Kind(
        LIF,
        lambda m: to_plain(m.constants),
        lambda **plain: LIF.of(from_plain(plain, Neuron, "LIF")),
    ),
    "FoldedLIF": _Kind(FoldedLIF, _read_folded, _make_folded),
}
