"""What all models share: units over time, global pooling, a linear readout, a time mean."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikefold.data import InputSpec
from spikefold.described import described, with_arguments
from spikefold.errors import ShapeError
from spikefold.models._arguments import Arguments
from spikefold.models._norms import current_norm, membrane_norm
from spikefold.nn import (
    LIF,
    MPBN,
    PLIF,
    OverTime,
    SpikingLayer,
    States,
    Stream,
    require_evaluation,
    traceable,
    transforms_of,
)
from spikefold.registry import Registry

P = ParamSpec("P")


class Standardize(nn.Module):
    """(x - mean) / deviation, a channel at a time, of `[N, C, H, W]`.

    Attributes:
        mean: of each channel, `[C]`; 0 until it is set.
        deviation: of each channel, `[C]`; 1 until it is set.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """The standardized images or frames."""
        return (x - self.mean[:, None, None]) / self.deviation[:, None, None]


@traceable
def as_frames(
    x: Float[Tensor, "..."], steps: int | None, default: int | None, channels: int | None
) -> Float[Tensor, "T N C H W"]:
    """An input as frames; an image is expanded over time without a copy.

    Arguments:
        x: images `[N, C, H, W]` or frames `[T, N, C, H, W]`.
        steps: T; default: that of `default` for images, their own for frames.
        default: T of this network, where it is known.
        channels: C of this network, where it is known.

    Raises:
        ShapeError: if a dimension is missing, channels or steps do not fit, or the batch comes
            before time, as far as that can be seen: the second dimension is `default`, the first
            is not. `steps` confirms that it is meant.
    """
    if x.ndim == 5:
        length, batch = x.shape[:2]
        if steps is not None and steps != length:
            raise ShapeError(
                f"frames {list(x.shape)} have {length} time steps of their own: leave "
                f"out steps={steps}"
            )
        if steps is None and default not in (None, 1, length) and batch == default:
            raise ShapeError(
                f"frames {list(x.shape)} for a network of {default} steps: time comes first, "
                f"[T, N, C, H, W]: x.transpose(0, 1), or steps={length} if T really is {length}"
            )
        frames = x
    elif x.ndim == 4:
        steps = default if steps is None else steps
        if steps is None:
            raise ShapeError(
                f"images {list(x.shape)} have no time dimension: give steps=T, or frames "
                "[T, N, C, H, W]"
            )
        if steps < 1:
            raise ShapeError(f"steps must be at least 1, got {steps}")
        frames = x.expand(steps, *x.shape)
    else:
        raise ShapeError(
            f"expected images [N, C, H, W] or frames [T, N, C, H, W], got {list(x.shape)}"
        )
    if channels is not None and frames.shape[2] != channels:
        raise ShapeError(
            f"the network takes {channels} input channels, got {frames.shape[2]} "
            f"in an input of shape {list(x.shape)}"
        )
    if frames.shape[0] == 0:
        raise ShapeError(f"no time step in frames of shape {list(x.shape)}")
    return frames


class Network(nn.Module):
    """A spiking network: units over time, global average pooling, linear readout, mean over time.

    Where its arguments say so, the input is standardized first.

    Arguments:
        name: under which `spikefold.models.build` finds the model.
        arguments: what it was built from.
        features: units and pooling, each from `[T, N, ...]` to `[T, N, ...]`.
        classifier: linear readout.

    Attributes:
        input_spec: how files become its input, and the names of its classes, where they are known.
    """

    def __init__(
        self, name: str, arguments: Arguments, features: nn.Sequential, classifier: nn.Linear
    ) -> None:
        super().__init__()
        self.name = name
        self.arguments = arguments
        self.input = OverTime(
            *([Standardize(arguments.in_channels)] if arguments.standardize else [])
        )
        self.features = features
        self.classifier = classifier
        self.input_spec: InputSpec | None = None

    def forward(self, x: Float[Tensor, "..."], steps: int | None = None) -> Float[Tensor, "N K"]:
        """Logits, averaged over time.

        Arguments:
            x: images `[N, C, H, W]`, shown for `steps` steps; or frames `[T, N, C, H, W]`.
            steps: number of time steps T; default: the network's own for images.

        Returns:
            logits `[N, K]`.

        Raises:
            ShapeError: if a dimension is missing, channels or steps do not fit.
        """
        arguments = self.arguments
        frames = as_frames(x, steps, arguments.steps, arguments.in_channels)
        features = self.features(self.input(frames))
        return self.classifier(features.mean((-2, -1))).mean(0)

    def step(
        self, x: Float[Tensor, "..."], state: States | None = None
    ) -> tuple[Float[Tensor, "N K"], States]:
        """One time step of a stream, in evaluation: this step's logits.

        The logits of a sequence are the mean over those of its steps, `torch.stack(all).mean(0)`:
        what `forward` gives, to the bit where convolutions sum alike for another batch.

        Arguments:
            x: frames of this step `[N, C, H, W]`, or the image that is shown.
            state: what the step before returned, by name of the layer (see `layers`); None starts
                at rest.

        Returns:
            logits `[N, K]`, and the state to hand to the next step.

        Raises:
            ShapeError: if a dimension is missing, channels do not fit, or past the last step, where
                there are parameters for each.
            ConfigError: in training mode, where a part cannot step, or for another's state.

        Example:
            >>> import torch, spikefold as sf
            >>> network = sf.models.small(in_channels=2, steps=3).eval()
            >>> frames, state, seen = torch.rand(3, 1, 2, 8, 8), None, []
            >>> for frame in frames:
            ...     logits, state = network.step(frame, state)
            ...     seen.append(logits)
            >>> torch.allclose(torch.stack(seen).mean(0), network(frames), atol=1e-6)
            True
        """
        require_evaluation(self)
        if x.ndim != 4:
            raise ShapeError(f"a step takes the frames [N, C, H, W] of one, got {list(x.shape)}")
        frames = as_frames(x, 1, None, self.arguments.in_channels)
        stream = Stream(state)
        features = stream.step("features", self.features, self.input(frames)[0])
        return self.classifier(features.mean((-2, -1))), stream.states()

    @property
    def transforms(self) -> tuple[str, ...]:
        """Names of what was done to it since it was built, such as "fold" and "fuse_conv_bn"."""
        return transforms_of(self)

    def layers(self) -> dict[str, SpikingLayer]:
        """The units by name, in the order in which they fire."""
        return {
            name: module
            for name, module in self.named_modules()
            if isinstance(module, SpikingLayer)
        }


@dataclass
class Builder:
    """Makes units one after another, and keeps track of channels and image size.

    Arguments:
        channels: channels of the input.
        size: height and width of the input, which element-wise normalization needs.
        arguments: norm, neurons and steps of all layers.
    """

    channels: int
    size: int
    arguments: Arguments

    def conv(
        self,
        channels: int,
        kernel: int = 3,
        stride: int = 1,
        bias: bool = False,
        branches: int = 1,
    ) -> SpikingLayer:
        """Convolution ("same" padding), norm, neurons; one of so many branches that add."""
        connection = nn.Conv2d(
            self.channels,
            channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            bias=bias or self.arguments.current_norm == "none",
        )
        self.channels = channels
        self.size = (self.size - 1) // stride + 1
        return SpikingLayer(connection, self.current_norm(channels, branches), self.neurons())

    def current_norm(self, channels: int, branches: int = 1) -> nn.Module:
        """After a connection to so many channels, one of so many branches that add."""
        a = self.arguments
        return current_norm(a.current_norm, channels, a.steps, a.neuron.threshold, branches)

    def neurons(self) -> LIF:
        """Neurons for the current channels and size."""
        constants, learnt = vars(self.arguments.neuron), self.arguments.learn_decay
        if learnt == "no":
            return LIF(self.membrane_norm(), **constants)
        channels = self.channels if learnt == "channel" else None
        return PLIF(self.membrane_norm(), channels=channels, **constants)

    def membrane_norm(self) -> MPBN | None:
        """Of the potentials of the current channels and size."""
        a, spatial = self.arguments, (self.size, self.size)
        return membrane_norm(a.norm, self.channels, spatial, a.steps, a.rate, a.neuron.threshold)

    def pool(self, kernel: int = 2, stride: int = 2, padding: int = 0) -> OverTime:
        """Average pooling, by default over 2x2 pixels."""
        self.size = (self.size + 2 * padding - kernel) // stride + 1
        return OverTime(nn.AvgPool2d(kernel, stride, padding))


Features = Callable[[Builder, float], list[nn.Module]]
MODELS: Registry[Callable[..., Network]] = Registry("model")


def register(
    arguments: Callable[P, Arguments], *, readout: float | None = None, **defaults: Any
) -> Callable[[Features], Callable[P, Network]]:
    """Make a model, to be called and to be found in `MODELS`, of a function that makes its units.

    The model takes all that `Arguments` has; so say its signature and its docstring.

    Arguments:
        arguments: the class `Arguments`, from which type checkers know what the model takes.
        readout: deviation of the readout's first weights, whatever the width; default: 1 / fan-in.
        defaults: other than the class's own.

    Raises:
        ConfigError: if another model has the function's name.

    Example:
        >>> import torch, spikefold as sf
        >>> @sf.models.register(sf.models.Arguments)
        ... def two_layers(builder: sf.models.Builder, width: float) -> list[torch.nn.Module]:
        ...     '''Two convolutions, pooled between.'''
        ...     return [builder.conv(round(32 * width)), builder.pool(), builder.conv(64)]
        >>> two_layers(num_classes=3, width=0.5, steps=4)(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3])
        >>> sf.models.build("two_layers", sf.models.Arguments(num_classes=3, norm="none")).name
        'two_layers'
    """
    make: Callable[..., Arguments] = arguments
    signature = inspect.signature(make)
    parameters = [
        parameter.replace(default=defaults.get(name, parameter.default))
        for name, parameter in signature.parameters.items()
    ]
    signature = signature.replace(parameters=parameters, return_annotation=Network)

    def decorate(features: Features) -> Callable[P, Network]:
        @wraps(features)
        def build(*args: P.args, **kwargs: P.kwargs) -> Network:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return assemble(features.__name__, features, make(**bound.arguments), readout)

        documented: Any = build
        del documented.__wrapped__  # or pdoc shows the function that makes the units
        documented.__signature__ = signature
        documented.__doc__ = with_arguments(features.__doc__, described(arguments))
        MODELS.add(features.__name__, build)
        return build

    return decorate


def assemble(
    name: str, features: Features, arguments: Arguments, readout: float | None = None
) -> Network:
    """Build the units, put the readout on, initialize the weights as the official code does.

    Arguments:
        name: under which `build` finds the model again.
        features: makes the units with a builder, for a width factor.
        arguments: what to build.
        readout: deviation of the readout's first weights; default: 1 / fan-in.

    Example:
        >>> import torch, spikefold as sf
        >>> arguments = sf.models.Arguments(num_classes=3, in_channels=1, steps=4)
        >>> units = lambda builder, width: [builder.conv(round(8 * width))]
        >>> one_layer = sf.models.assemble("one", units, arguments)
        >>> one_layer(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
    """
    builder = Builder(arguments.in_channels, arguments.image_size, arguments)
    units = nn.Sequential(*features(builder, arguments.width))
    network = Network(name, arguments, units, nn.Linear(builder.channels, arguments.num_classes))
    initialize(network)
    if readout is not None:
        nn.init.normal_(network.classifier.weight, std=readout)
    return network


def initialize(network: nn.Module) -> None:
    """Weights as in the official code: He normal by fan-out; linear of deviation 1 / fan-in."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=1 / module.in_features)
            nn.init.zeros_(module.bias)


def scaled(channels: int, width: float) -> int:
    """Channels times the width factor, rounded, at least 1."""
    return max(1, round(channels * width))
