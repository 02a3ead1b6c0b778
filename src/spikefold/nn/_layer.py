"""The layer that networks are made of, and ordinary modules applied to every time step."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from spikefold import dynamics
from spikefold.dynamics import Currents, Normalization, Observed
from spikefold.errors import ConfigError, ShapeError
from spikefold.nn._attached import attached
from spikefold.nn._batch_norm import normalization
from spikefold.nn._neuron import SpikingNeuron
from spikefold.nn._norm import CurrentNorm, MembraneNorm, as_given, is_called
from spikefold.nn._running import kept, observe
from spikefold.nn._state import State, begun, refuse_hooks, require_evaluation, require_step
from spikefold.nn._still import distinct_steps
from spikefold.nn._traceable import traceable


def _distinct_steps(module: nn.Module, x: Float[Tensor, "T N ..."]) -> Float[Tensor, "..."]:
    """The module's output at every time step, or at one `[1, N, ...]` if they are all the same.

    Time is merged into the batch, but for what knows time.
    """
    if x.ndim < 3:
        raise ShapeError(f"expected [T, N, ...], got {list(x.shape)}: is a dimension missing?")
    # torch would take a sequence without time for one image
    if isinstance(module, _ConvNd) and x.ndim != 3 + len(module.kernel_size):
        sizes = ", ".join(("T", "N", "C", *"DHW"[-len(module.kernel_size) :]))
        raise ShapeError(f"expected [{sizes}], got {list(x.shape)}: is a dimension missing?")
    # one that knows time must see it
    if isinstance(module, CurrentNorm):
        return module(x)
    x = distinct_steps(x)
    y = _called(module, x.flatten(0, 1))
    return y.view(*x.shape[:2], *y.shape[1:])


def _called(module: nn.Module, x: Float[Tensor, "TN ..."]) -> Tensor:
    """The module's output; of a plain average pool by `dynamics`, which has a kernel for it."""
    if type(module) is not nn.AvgPool2d or attached(module) is not None:
        called: Tensor = module(x)
        return called
    return dynamics.average_pool(
        x,
        module.kernel_size,
        module.stride,
        module.padding,
        module.ceil_mode,
        module.count_include_pad,
        module.divisor_override,
    )


@traceable
def over_time(module: nn.Module, x: Float[Tensor, "T N ..."]) -> Float[Tensor, "T N ..."]:
    """Apply a module for `[N, ...]` to every time step, without a Python loop.

    Time is merged into the batch, so a BatchNorm sees (T, N, H, W) jointly. Where the input is one
    image shown T times (an expanded tensor), the module runs once and its result is expanded.
    A `CurrentNorm` gets the whole sequence.

    Arguments:
        module: a convolution, linear, pooling, a norm, or a sequence of such.
        x: `[T, N, ...]`.

    Returns:
        `[T, N, ...]`.

    Raises:
        ShapeError: if x has no time or no batch dimension.
    """
    y = _distinct_steps(module, x)
    return y.expand(x.shape[0], *y.shape[1:])


@traceable
def merge_time(x: Float[Tensor, "T N ..."]) -> Float[Tensor, "TN ..."]:
    """Time merged into the batch, for modules that take `[N, ...]`."""
    return x.flatten(0, 1)


@traceable
def split_time(
    x: Float[Tensor, "TN ..."], like: Float[Tensor, "T ..."]
) -> Float[Tensor, "T N ..."]:
    """Time and batch separated again, with the steps of another tensor."""
    return x.unflatten(0, (like.shape[0], -1))


class OverTime(nn.Sequential):
    """Ordinary modules in a row, applied to every time step of `[T, N, ...]`; see `over_time`."""

    def forward(self, x: Float[Tensor, "T N ..."]) -> Float[Tensor, "T N ..."]:
        """Apply the modules.

        Arguments:
            x: `[T, N, ...]`.
        """
        for module in self:
            x = over_time(module, x)
        return x


def _normed(norm: nn.Module, y: Tensor, steps: int) -> tuple[Tensor, Normalization | None]:
    """The connection's output and its norm; or, where the norm must be called, its output alone."""
    if isinstance(norm, CurrentNorm):
        if is_called(norm):
            return norm(y.expand(steps, *y.shape[1:])), None
        norm.check((steps, *y.shape[1:]))
        return y, norm.normalization()
    if attached(norm) is None:
        if type(norm) is nn.Identity:
            return y, None
        known = normalization(norm)
        if known is not None:
            return y, known
    return _distinct_steps(norm, y), None


def _in_step(norm: nn.Module, state: State) -> Normalization | None:
    """What a norm that knows time does in the next step of a stream; None of any other module.

    Raises:
        ConfigError: if it depends on the other steps.
        ShapeError: past the last step for which it has parameters.
    """
    name = type(norm).__name__
    if isinstance(norm, _BatchNorm) and kept(norm) is None:
        raise ConfigError(f"{name} takes statistics of whole sequences: it cannot step")
    if not isinstance(norm, CurrentNorm):
        return None
    if is_called(norm):
        raise ConfigError(
            f"{name} carries hooks or a forward of its own, for whole sequences: it cannot step"
        )
    known = norm.normalization()
    if known.fixed is None and known.over != "each":
        raise ConfigError(f"{name} takes statistics of whole sequences: it cannot step")
    return state.part(known, 1, f"this {name}")


def _normed_step(norm: nn.Module, y: Tensor, state: State) -> tuple[Tensor, Normalization | None]:
    """The connection's output and its norm in the next step of a stream; see `_normed`."""
    known = _in_step(norm, state)
    return _normed(norm, y, 1) if known is None else (y, known)


def step_over_time(
    row: OverTime, x: Float[Tensor, "N ..."], state: State
) -> Float[Tensor, "N ..."]:
    """One time step of ordinary modules in a stream, in evaluation.

    Arguments:
        row: the modules.
        x: `[N, ...]` of this step.
        state: of neurons in the same stream, which says which step it is.

    Raises:
        ShapeError: past the last step, where there are parameters for each.
        ConfigError: where a module cannot step.
    """
    refuse_hooks(row)
    y = x[None]
    for module in row:
        known = _in_step(module, state)
        if known is None:
            y = _distinct_steps(module, y)
        else:
            y = as_given(dynamics.compute(Currents(y, 1, known))[0], y)
    return y[0]


def _observe(norm: nn.Module, observed: Observed) -> None:
    if isinstance(norm, CurrentNorm):
        norm.observe(observed)
    else:
        observe(norm, observed)


class SpikingLayer(nn.Module):
    """A layer, the unit networks are made of: `lif(norm(connection(x)) + shortcut)`.

    A batch norm of torch or a `CurrentNorm`, the shortcut and the neurons are computed together,
    with the currents in float32 also under mixed precision. Norm and neurons that carry hooks are
    called as modules, as usual, and so is any other norm.

    Arguments:
        connection: convolution or linear; sees time merged into the batch.
        norm: normalization after the connection: a `CurrentNorm`, or a module that sees time
            merged into the batch (one BN over time, batch and space), or `nn.Identity()`.
        lif: the neurons, any `SpikingNeuron`.

    Example:
        >>> import torch, spikefold as sf
        >>> layer = sf.SpikingLayer(
        ...     torch.nn.Conv2d(3, 16, 3, padding=1, bias=False),
        ...     torch.nn.BatchNorm2d(16),
        ...     sf.LIF(norm=sf.MPBN(16)),
        ... )
        >>> layer(torch.randn(4, 2, 3, 8, 8)).shape
        torch.Size([4, 2, 16, 8, 8])
    """

    def __init__(self, connection: nn.Module, norm: nn.Module, lif: SpikingNeuron) -> None:
        super().__init__()
        for name, module in {"connection": connection, "norm": norm}.items():
            if not isinstance(module, nn.Module):
                raise ConfigError(
                    f"SpikingLayer: {name} must be a module, got {type(module).__name__}: "
                    "nn.Identity() where there is none"
                )
        if not isinstance(lif, SpikingNeuron):
            raise ConfigError(
                f"SpikingLayer: lif must be neurons such as sf.LIF(), got {type(lif).__name__}"
            )
        if isinstance(norm, MembraneNorm):
            raise ConfigError(
                f"SpikingLayer: {type(norm).__name__} normalizes the potential: give it to the "
                "neurons, as in sf.LIF(norm=...)"
            )
        if isinstance(norm, CurrentNorm):
            norm.suit(lif.constants.threshold)
        self.connection = connection
        self.norm = norm
        self.lif = lif

    def forward(
        self, x: Float[Tensor, "T N ..."], shortcut: Float[Tensor, "T N ..."] | None = None
    ) -> Float[Tensor, "T N ..."]:
        """Spikes of the layer.

        Arguments:
            x: spikes or images `[T, N, C, *spatial]` or `[T, N, F]`.
            shortcut: added to the currents before firing, of their shape.
        """
        lif = self.lif
        y, steps = _distinct_steps(self.connection, x), x.shape[0]
        y, norm = _normed(self.norm, y, steps)
        currents = Currents(y, steps, norm, shortcut)
        # hooks, and a forward of the user's, must see computed currents
        if lif.is_called():
            currents.check()
            computed, observed = dynamics.compute(currents)
            spikes = lif(computed).to(y.dtype)
        else:
            spikes, _, observed, _ = lif.fire(currents)
        if observed is not None:
            _observe(self.norm, observed)
        return spikes

    def step(
        self,
        x: Float[Tensor, "N ..."],
        state: State | None = None,
        shortcut: Float[Tensor, "N ..."] | None = None,
    ) -> tuple[Float[Tensor, "N ..."], State]:
        """One time step of a stream, in evaluation.

        What a whole sequence gives, to the bit where the connection sums alike for another batch.

        Arguments:
            x: spikes or images `[N, C, *spatial]` or `[N, F]` of this step.
            state: what the step before returned; None starts at rest.
            shortcut: added to the currents before firing, of their shape.

        Returns:
            spikes, and the state to hand to the next step.

        Raises:
            ShapeError: past the last step, where there are parameters for each.
            ConfigError: in training mode, or where a part cannot step.
        """
        require_evaluation(self)
        require_step(self.lif)
        state = begun(state)
        y, norm = _normed_step(self.norm, _distinct_steps(self.connection, x[None]), state)
        currents = Currents(y, 1, norm, None if shortcut is None else shortcut[None])
        if type(self.lif).step is SpikingNeuron.step:
            fired = self.lif.fire(currents, state)
            return fired.spikes[0], state.advanced(fired.v)
        currents.check()
        spikes, state = self.lif.step(dynamics.compute(currents)[0][0], state)
        return spikes.to(y.dtype), state
