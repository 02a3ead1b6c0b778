"""The Triton kernels against the reference, in Triton's interpreter; on a GPU if there is one."""

# ruff: noqa: E402

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

GPU = torch.cuda.is_available()
pytest.importorskip("triton", reason="triton is not installed (there is none for this platform)")

from spikefold.dynamics import (
    PLAIN,
    Condition,
    Currents,
    Fired,
    Neuron,
    Normalization,
    Statistics,
    simulate_reference,
)
from spikefold.dynamics._kernels import _cpu, _operators, _triton
from spikefold.dynamics._surrogate import SURROGATES
from tests.dynamics.cases import simulate_fused

BLOCKS = {
    "one tile": _triton.Blocks(),
    "many tiles": _triton.Blocks(tile=32, whole=32, width=4, scratch=4 * 4 * 60),
}
DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(GPU, reason="the interpreter is off")),
    pytest.param("cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no GPU")]),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where the Triton kernels run; that they did is asked afterwards."""
    ran: list[Any] = []
    forward = _triton.forward

    def noticed(*arguments: Any) -> None:
        ran.append(arguments)
        forward(*arguments)

    monkeypatch.setattr(_triton, "forward", noticed)
    if request.param == "cpu":
        monkeypatch.setitem(_operators.KERNELS, "cpu", _triton)
    with torch.device(request.param):
        yield request.param
    assert ran


@pytest.fixture(params=BLOCKS)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "blocks", BLOCKS[request.param])


def norm(shape: tuple[int, ...], fixed: bool = False) -> Normalization:
    """Random gains of both signs."""
    gain, shift = torch.randn(shape), torch.randn(shape) * 0.3
    statistics = Statistics(torch.randn(shape) * 0.2, torch.rand(shape) + 0.5)
    return Normalization(gain, shift, 1e-5, statistics if fixed else None)


def make_condition(kind: str, shape: tuple[int, ...]) -> Condition:
    sets = shape[0] if "per step" in kind else 1
    parameters = (sets, *(shape[2:] if "elementwise" in kind else shape[2:3]))
    match kind.split()[0]:
        case "batch" | "fixed":
            return Condition(norm(parameters, kind.startswith("fixed")))
        case "thresholds":
            return Condition(None, torch.randn(parameters))
        case "polarity":
            return Condition(None, torch.randn(parameters), torch.randn(parameters).sign())
    return PLAIN


def make(
    shape: tuple[int, ...] = (3, 4, 3, 5, 3),
    last: bool = False,
    constant: bool = False,
    current: str | None = None,
    shortcut: bool = False,
    condition: str = "batch",
    state: bool = True,
    decay: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Currents, Condition, Tensor | None, Tensor | None]:
    """A layer's arguments, random."""

    def signal(steps: int) -> Tensor:
        made = torch.randn(steps, *shape[1:]).to(dtype)
        return made.movedim(2, -1).contiguous().movedim(-1, 2) if last else made

    after = None
    if current is not None:
        sets = shape[0] if "per step" in current else 1
        after = norm((sets, shape[2]), current.startswith("fixed"))
    extra = signal(shape[0]) if shortcut else None
    currents = Currents(signal(1 if constant else shape[0]), shape[0], after, extra)
    v = signal(1)[0].float() if state else None
    sizes = {"layer": (), "channel": (shape[2],)}
    learnt = None if decay is None else torch.rand(sizes[decay])
    return currents, make_condition(condition, shape), v, learnt


def to(value: Any, dtype: torch.dtype) -> Any:
    """The tensors inside, as leaves that get gradients."""
    if isinstance(value, Tensor):
        return value.detach().to(dtype).requires_grad_()
    if isinstance(value, Statistics):
        return Statistics(*(tensor.detach().to(dtype) for tensor in value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to(item, dtype) for item in value))
    return value


def leaves(
    currents: Currents, condition: Condition, v: Tensor | None, decay: Tensor | None
) -> list[Tensor]:
    """The tensors that get a gradient."""
    norms = [n for n in (currents.norm, condition.norm) if isinstance(n, Normalization)]
    found = [currents.input, currents.shortcut, v, decay, *(t for n in norms for t in n[:2])]
    return [tensor for tensor in found if tensor is not None]


def outputs(fired: Fired) -> list[Tensor]:
    taken = [
        part
        for observed in (fired.current_statistics, fired.potential_statistics)
        for part in (observed or ())
    ]
    return [fired.spikes, fired.v, *(part for part in taken if isinstance(part, Tensor))]


def learn(
    layer: Any, arguments: tuple[Any, ...], neuron: Neuron, through: str = "both"
) -> list[Tensor]:
    """Spikes, last potential, statistics, and gradients of a random but fixed loss."""
    currents, condition, v, decay = arguments
    fired = layer(currents, condition, neuron, v, decay)
    weight = torch.Generator(fired.v.device).manual_seed(1)
    loss = fired.v.new_zeros(())
    for name, out in (("spikes", fired.spikes), ("v", fired.v)):
        random = torch.randn(out.shape, generator=weight).bfloat16().to(out.dtype)
        if through in (name, "both"):
            loss = loss + (out * random).sum()
    inputs = leaves(*arguments)
    grads = torch.autograd.grad(loss, inputs, allow_unused=True)
    pairs = zip(inputs, grads, strict=True)
    return outputs(fired) + [torch.zeros_like(a) if g is None else g for a, g in pairs]


def half(arguments: tuple[Any, ...], dtype: torch.dtype) -> tuple[Any, ...]:
    """Leaves with input and shortcut in half precision, all else in float32."""
    currents, *others = (to(argument, torch.float32) for argument in arguments)
    signals = {"input": to(currents.input, dtype), "shortcut": to(currents.shortcut, dtype)}
    return currents._replace(**signals), *others


def check(neuron: Neuron, through: str = "both", **case: Any) -> None:
    """Spikes equal, statistics and gradients close to the reference's in float64."""
    dtype = case.get("dtype", torch.float32)
    arguments = make(**case)
    ours = half(arguments, dtype)
    found = learn(simulate_fused, ours, neuron, through)
    exact = tuple(to(argument, torch.float64) for argument in arguments)
    expected = learn(simulate_reference, exact, neuron, through)
    assert found[0].dtype == dtype
    assert torch.equal(found[0].double(), expected[0])
    for a, b in zip(found[1:], expected[1:], strict=True):
        fine = a.dtype == torch.float32
        rtol, atol = (1e-4, 1e-5) if fine else (2 * torch.finfo(a.dtype).eps, 1e-4)
        torch.testing.assert_close(a.double(), b, rtol=rtol, atol=atol)


CASES: dict[str, dict[str, Any]] = {
    "planes": {},
    "columns": {"shape": (3, 2, 5, 5, 3), "last": True},
    "features": {"shape": (3, 9, 5)},
    "one step": {"shape": (1, 4, 3, 5, 3)},
    "one channel": {"shape": (2, 3, 1, 5, 5)},
    "one pixel": {"shape": (2, 9, 5, 1, 1)},
    "one sample": {"shape": (3, 1, 3, 5, 3), "condition": "fixed"},
    "no state": {"state": False},
    "no norm": {"condition": "none"},
    "fixed": {"condition": "fixed"},
    "thresholds": {"condition": "thresholds"},
    "polarity": {"condition": "polarity", "last": True},
    "elementwise": {"condition": "batch elementwise", "shape": (3, 9, 2, 3, 2)},
    "elementwise columns": {
        "condition": "batch elementwise",
        "shape": (3, 9, 2, 3, 2),
        "last": True,
    },
    "elementwise polarity": {"condition": "polarity elementwise"},
    "elementwise, norm before": {
        "condition": "batch elementwise",
        "current": "fixed",
        "shortcut": True,
        "shape": (3, 9, 2, 3, 2),
    },
    "elementwise thresholds, norm of each step before": {
        "condition": "polarity elementwise",
        "current": "fixed per step",
        "last": True,
    },
    "shortcut": {"shortcut": True},
    "constant": {"constant": True},
    "constant shortcut": {"constant": True, "shortcut": True, "condition": "none"},
    "batch norm": {"current": "batch"},
    "batch norm, no MPBN": {"current": "batch", "condition": "none", "shortcut": True},
    "batch norm, shortcut": {"current": "batch", "shortcut": True},
    "batch norm, columns": {
        "current": "batch",
        "shortcut": True,
        "last": True,
        "shape": (3, 2, 5, 5, 3),
    },
    "batch norm, constant": {"current": "batch", "constant": True},
    "batch norm, constant, no MPBN": {"current": "batch", "constant": True, "condition": "fixed"},
    "fixed norm": {"current": "fixed", "shortcut": True},
    "per step": {"condition": "batch per step"},
    "per step, one": {"condition": "batch per step", "shape": (1, 4, 3, 5, 3)},
    "per step, fixed": {"condition": "fixed per step", "last": True, "shape": (3, 2, 5, 5, 3)},
    "per step, thresholds": {"condition": "thresholds per step"},
    "per step, polarity": {"condition": "polarity per step", "current": "fixed"},
    "per step, elementwise": {"condition": "batch per step elementwise", "shape": (3, 9, 2, 3, 2)},
    "per step, batch norm": {"condition": "batch per step", "current": "batch", "shortcut": True},
    "norm per step": {"current": "fixed per step", "shortcut": True},
    "norm per step, no MPBN, constant": {
        "current": "fixed per step",
        "constant": True,
        "condition": "none",
    },
    "norm per step, columns": {
        "current": "fixed per step",
        "condition": "fixed per step",
        "last": True,
        "shape": (3, 2, 5, 5, 3),
    },
    "norm per step, decay": {"current": "fixed per step", "decay": "channel"},
    "decay": {"decay": "layer"},
    "decay a channel": {"decay": "channel", "constant": True, "condition": "none"},
    "decay a channel, columns": {"decay": "channel", "last": True, "shape": (3, 2, 5, 5, 3)},
    "decay, elementwise": {
        "decay": "channel",
        "condition": "batch elementwise per step",
        "shape": (3, 9, 2, 3, 2),
    },
    "decay, batch norm": {"decay": "channel", "current": "batch", "state": False},
    "bfloat16": {"dtype": torch.bfloat16, "current": "batch", "shortcut": True},
    "float16": {"dtype": torch.float16, "last": True, "shape": (3, 2, 5, 5, 3)},
}


@pytest.mark.usefixtures("device", "blocks")
@pytest.mark.parametrize("case", CASES)
def test_a_layer_fires_and_learns_as_the_reference(case: str) -> None:
    check(Neuron(), **CASES[case])


@pytest.mark.usefixtures("device", "blocks")
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_every_reset(reset: Any, detach_reset: bool) -> None:
    check(Neuron(0.7, 0.3, reset, detach_reset=detach_reset), current="batch")


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate(surrogate: str) -> None:
    kind: Any = SURROGATES[surrogate]
    check(Neuron(surrogate=kind(1.7)))


@pytest.mark.usefixtures("device", "blocks")
@pytest.mark.parametrize("through", ["spikes", "v"])
def test_a_gradient_may_be_absent(through: str) -> None:
    check(Neuron(), through, shape=(2, 4, 2, 5, 3))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, in the interpreter, about NaN
@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("condition", ["none", "fixed", "thresholds", "polarity"])
@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_in_inference_not_one_bit_differs(condition: str, reset: Any) -> None:
    """Inputs lie within some ulp of where the neuron starts to fire."""
    arguments = make((2, 60, 4, 4, 4), current="fixed", shortcut=True, condition=condition)
    currents, firing, *_ = arguments
    neuron = Neuron(0.9, 0.3, reset)
    u = torch.full((4,), neuron.threshold)
    if isinstance(firing.norm, Normalization):
        gain, shift, eps, fixed, *_ = firing.norm
        mean, variance = fixed  # type: ignore[misc]
        u = ((u - shift) * (variance + eps).sqrt() / gain + mean)[0]
    elif firing.theta is not None:
        u = firing.theta[0]
    after: Any = currents.norm
    mean, variance = (value[0] for value in after.fixed)
    deviation = (variance + after.eps).sqrt()[:, None, None]
    ulps = torch.randint(-3, 4, currents.input.shape) * u.abs()[:, None, None] * 2**-23
    x = u[:, None, None] + ulps - after.shift[0][:, None, None] - currents.shortcut
    x = x * deviation / after.gain[0][:, None, None] + mean[:, None, None]
    x[1, 0, :, 0, 0] = torch.tensor([math.nan, math.inf, -math.inf, 0.0])
    currents = currents._replace(input=x)

    found = outputs(simulate_fused(currents, firing, neuron))
    expected = outputs(simulate_reference(currents, firing, neuron))

    assert 0.2 < found[0].mean() < 0.8
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("device", DEVICES[:1], indirect=True)
@pytest.mark.skipif(_cpu.native is None, reason="no compiled kernels")
def test_both_kernels_agree(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make((3, 6, 3, 4, 4), current="batch", shortcut=True)
    found = learn(simulate_fused, half(case, torch.float32), Neuron())
    monkeypatch.setitem(_operators.KERNELS, device, _cpu)
    expected = learn(simulate_fused, half(case, torch.float32), Neuron())
    assert torch.equal(found[0], expected[0])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("device", "blocks")
@pytest.mark.parametrize("last", [False, True])
def test_statistics_do_not_suffer_from_a_large_mean(last: bool) -> None:
    currents, condition, *_ = make((2, 8, 2, 5, 5), last=last, current="batch", state=False)
    currents = currents._replace(input=currents.input + 1000)
    fired = simulate_fused(currents, condition, Neuron())
    exact = torch.var_mean(currents.input.double(), dim=(0, 1, 3, 4), correction=0)
    mean, variance = (value[0].double() for value in fired.current_statistics[:2])
    torch.testing.assert_close(variance, exact[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(mean, exact[1], rtol=5e-7, atol=0)


@pytest.mark.usefixtures("device", "blocks")
def test_steps_may_lie_apart() -> None:
    currents, condition, v, _ = make()
    apart = torch.stack([currents.input, currents.input + 1], dim=1).flatten(0, 1)[::2]
    assert not apart.is_contiguous()
    found = simulate_fused(currents._replace(input=apart), condition, Neuron(), v)
    assert torch.equal(found.spikes, simulate_fused(currents, condition, Neuron(), v).spikes)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU")
@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("case", ["planes", "batch norm, columns", "polarity"])
def test_the_operator_is_sound(case: str) -> None:
    with torch.device("cuda"):
        currents, condition, v, _ = half(make(**CASES[case]), torch.float32)
    recorded: list[tuple[Any, ...]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikefold.dynamics._kernels._fused._apply", lambda *a: recorded.append(a))
        with pytest.raises(TypeError):
            simulate_fused(currents, condition, Neuron(), v)
    *_, arguments, _ = recorded[0]
    torch.library.opcheck(torch.ops.spikefold.layer.default, tuple(arguments))


@pytest.mark.gpu
@pytest.mark.skipif(not GPU, reason="no GPU")
def test_the_same_input_gives_the_same_bits() -> None:
    with torch.device("cuda"):
        case = make((4, 64, 64, 32, 32), current="batch", shortcut=True)
        first = learn(simulate_fused, half(case, torch.float32), Neuron())
        second = learn(simulate_fused, half(case, torch.float32), Neuron())
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
