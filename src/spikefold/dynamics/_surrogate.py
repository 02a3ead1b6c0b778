"""Surrogate gradients: they replace the derivative of the step function in the backward pass."""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from numbers import Real
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd import forward_ad

from spikefold.errors import ConfigError
from spikefold.registry import Registry, unknown


class Form(NamedTuple):
    """The derivative of a step, ds/dz = height · shape(scale · z) for |z| <= window, else 0.

    Attributes:
        shape: one of `SHAPES`, even functions.
        scale, height: numbers.
        window: half the width outside of which the derivative is 0; inf: none.
    """

    shape: str
    scale: float
    height: float
    window: float = math.inf


# What the kernels know as well, in this order: `csrc/layer.h` (`enum`) and `csrc/surrogate.h`,
# `_kernels/_triton_equations.py`.
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": lambda y: torch.sigmoid(y) * torch.sigmoid(-y),
    "box": torch.ones_like,
    "triangle": lambda y: (1 - y.abs()).clamp(min=0),
    "rational": lambda y: 1 / (1 + y * y),
}


@dataclass(frozen=True)
class Surrogate:
    """The derivative ds/dz that replaces the step's, with z = h - threshold.

    Every surrogate is the derivative of a smooth or piecewise smooth step from 0 to 1, its
    `antiderivative`; so each has integral 1. One of your own is a frozen dataclass of plain numbers
    with a `name`: it gives its `form` and runs in the kernels, or overrides `derivative` and runs
    on the reference. `register_surrogate` lets files name it.
    """

    name: ClassVar[str]

    def form(self) -> Form:
        """What the derivative is, for plain torch and the kernels."""
        raise NotImplementedError

    def derivative(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """ds/dz at z, same shape."""
        shape, scale, height, window = self.form()
        slope = height * SHAPES[shape](scale * z)
        return slope if window == math.inf else torch.where(z.abs() <= window, slope, 0.0)

    def antiderivative(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """The soft step whose derivative this is: 0 far below the threshold, 1 far above."""
        raise NotImplementedError


SURROGATES: Registry[type[Surrogate]] = Registry("surrogate")
SurrogateT = TypeVar("SurrogateT", bound=Surrogate)


def register_surrogate(kind: type[SurrogateT]) -> type[SurrogateT]:
    """Let files name a surrogate of your own, so that networks with it can be saved and loaded.

    Arguments:
        kind: a subclass of `Surrogate`, a frozen dataclass with a `name` of its own.

    Returns:
        the class itself, so that this can be a decorator.

    Raises:
        ConfigError: if the class is not such a one, or another class has the name.
    """
    require_surrogate_class(kind)
    SURROGATES.add(kind.name, kind)
    return kind


def require_surrogate_class(kind: type) -> None:
    """Refuse a class whose surrogates could not be saved.

    Raises:
        ConfigError: with what is missing.
    """
    if not issubclass(kind, Surrogate):
        raise ConfigError(f"surrogate: {kind.__name__} is not a subclass of sf.Surrogate")
    if not isinstance(getattr(kind, "name", None), str):
        raise ConfigError(f"surrogate: {kind.__name__} needs a name: ClassVar[str]")
    if kind.derivative is Surrogate.derivative and kind.form is Surrogate.form:
        raise ConfigError(f"surrogate {kind.name}: {kind.__name__} has no form and no derivative")


def _require_positive(surrogate: Surrogate, field: str) -> None:
    value = getattr(surrogate, field)
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"surrogate {surrogate.name}: {field} must be positive, got {value}")


@register_surrogate
@dataclass(frozen=True)
class Tanh(Surrogate):
    """The window of the official MPBN code: k (1 - tanh²(k z)) / (2 tanh(k / 2)) for |z| <= 1/2.

    Source: Guo et al., ICCV 2023, official code (k = 3).
    """

    name: ClassVar[str] = "tanh"
    k: float = 3.0

    def __post_init__(self) -> None:
        _require_positive(self, "k")

    def form(self) -> Form:  # 1 - tanh²(y) = 4 σ(2 y) σ(-2 y)
        return Form("logistic", 2 * self.k, 2 * self.k / math.tanh(self.k / 2), 0.5)

    def antiderivative(self, z: Tensor) -> Tensor:
        return torch.tanh(self.k * z.clamp(-0.5, 0.5)) / (2 * math.tanh(self.k / 2)) + 0.5


@register_surrogate
@dataclass(frozen=True)
class Rectangle(Surrogate):
    """1 / width for |z| < width / 2.  Source: Wu et al., STBP, 2018, eq. 24 (h1)."""

    name: ClassVar[str] = "rectangle"
    width: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self, "width")

    def form(self) -> Form:
        edge = np.float32(self.width / 2)  # not inside: the last float32 before it is
        return Form("box", 1.0, 1 / self.width, float(np.nextafter(edge, np.float32(0))))

    def antiderivative(self, z: Tensor) -> Tensor:
        return (z / self.width + 0.5).clamp(0, 1)


@register_surrogate
@dataclass(frozen=True)
class Triangle(Surrogate):
    """max(0, width - |z|) / width².  Source: Deng et al., TET, ICLR 2022, eq. 4 (their gamma)."""

    name: ClassVar[str] = "triangle"
    width: float = 1.0

    def __post_init__(self) -> None:
        _require_positive(self, "width")

    def form(self) -> Form:
        return Form("triangle", 1 / self.width, 1 / self.width)

    def antiderivative(self, z: Tensor) -> Tensor:
        y = z.clamp(-self.width, self.width) / self.width
        return 0.5 + y - 0.5 * y * y.abs()


@register_surrogate
@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """alpha σ(alpha z) (1 - σ(alpha z)).  Source: Wu et al., STBP, 2018, eq. 26 (h3)."""

    name: ClassVar[str] = "sigmoid"
    alpha: float = 4.0

    def __post_init__(self) -> None:
        _require_positive(self, "alpha")

    def form(self) -> Form:
        return Form("logistic", self.alpha, self.alpha)

    def antiderivative(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.alpha * z)


@register_surrogate
@dataclass(frozen=True)
class Atan(Surrogate):
    """alpha / (2 (1 + (π alpha z / 2)²)).  Source: Fang et al., PLIF, ICCV 2021 (alpha = 2)."""

    name: ClassVar[str] = "atan"
    alpha: float = 2.0

    def __post_init__(self) -> None:
        _require_positive(self, "alpha")

    def form(self) -> Form:
        return Form("rational", math.pi / 2 * self.alpha, self.alpha / 2)

    def antiderivative(self, z: Tensor) -> Tensor:
        return torch.atan((math.pi / 2 * self.alpha) * z) / math.pi + 0.5


def require_surrogate(surrogate: object) -> None:
    """Refuse what is not a surrogate, or could not be saved.

    Raises:
        ConfigError: with what would be right.
    """
    if not isinstance(surrogate, Surrogate):
        given = surrogate.__name__ if isinstance(surrogate, type) else repr(surrogate)
        raise ConfigError(f"surrogate must be an object such as sf.Tanh(), got {given}")
    require_surrogate_class(type(surrogate))
    named = {field.name for field in fields(surrogate)}
    for name, value in vars(surrogate).items():
        if name not in named:
            kind = type(surrogate).__name__
            raise ConfigError(
                f"surrogate {surrogate.name}: {name} is not a field: {kind} must be a frozen "
                "dataclass"
            )
        if not isinstance(value, bool | Real | str):
            kind = type(value).__name__
            raise ConfigError(f"surrogate {surrogate.name}: {name} must be a number, got a {kind}")


@cache
def form_of(surrogate: Surrogate) -> Form | None:
    """Its form, if its derivative is the one of a form.

    Raises:
        ConfigError: if that is none that the kernels compute.
    """
    if type(surrogate).derivative is not Surrogate.derivative:
        return None
    form = surrogate.form()
    require_form(f"surrogate {surrogate.name}", form)
    return form


def require_form(what: str, form: Form) -> None:
    """Refuse shapes that are unknown, and numbers with which no derivative is meant.

    Raises:
        ConfigError: names what has it.
    """
    if form.shape not in SHAPES:
        raise ConfigError(f"{what}: {unknown('shape', form.shape, SHAPES)}")
    if not (math.isfinite(form.scale) and math.isfinite(form.height) and form.window >= 0):
        raise ConfigError(f"{what}: scale, height and window are not a form: {form}")


def is_above(
    h: Float[Tensor, "..."], threshold: Float[Tensor, "..."] | float
) -> Bool[Tensor, "..."]:
    """The firing condition, h > threshold: strictly greater, NaN never fires."""
    return h > threshold


class _Fire(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(h: Tensor, threshold: Tensor | float, surrogate: Surrogate) -> Tensor:
        return is_above(h, threshold).to(h.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        h, threshold, ctx.surrogate = inputs
        ctx.plain = None if isinstance(threshold, Tensor) else threshold
        tensors = (h, threshold) if isinstance(threshold, Tensor) else (h,)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def _derivative(ctx: Any) -> Tensor:
        h, *threshold = ctx.saved_tensors
        return ctx.surrogate.derivative(h - (threshold[0] if threshold else ctx.plain))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        return grads[0] * _Fire._derivative(ctx), None, None


class _FireForward(_Fire):
    """With a forward derivative too; a class of its own, because torch.compile refuses one."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return tangents[0] * _Fire._derivative(ctx)


def fire(
    h: Float[Tensor, "..."], threshold: Float[Tensor, "..."] | float, surrogate: Surrogate
) -> Float[Tensor, "..."]:
    """Spikes: s = 1 where h > threshold, else 0; ds/dh is the surrogate's.

    Arguments:
        h: potentials, any shape, floating point.
        threshold: a number, or a tensor that broadcasts against h; it gets no gradient.
        surrogate: the derivative used backward.

    Returns:
        Zeros and ones of h's shape and dtype.

    Source: Guo et al., ICCV 2023, eq. 2 (strict inequality as in the official code).
    """
    function = _Fire if forward_ad._current_level < 0 else _FireForward
    return function.apply(h, threshold, surrogate)
