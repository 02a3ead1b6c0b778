"""What is found once for all layers of a geometry: found again where it must be, never stale."""

import gc
import threading
import weakref

import pytest
import torch
from torch import Tensor

import spikefold as sf
from spikefold.dynamics import Condition, Currents, Neuron, Statistics, simulate, simulate_reference
from spikefold.dynamics._kernels import _arguments, _plan
from spikefold.errors import ShapeError

pytestmark = pytest.mark.usefixtures("kernels_only")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The inputs for which a plan was made, in order."""
    seen: list[torch.Size] = []
    check = _arguments.check

    def noted(a: _arguments.Arguments) -> None:
        seen.append(a.input.shape)
        check(a)

    monkeypatch.setattr(_plan, "_plans", {})
    monkeypatch.setattr(_arguments, "check", noted)
    return seen


def run(x: Tensor, theta: Tensor, **constants: float) -> Tensor:
    spikes = simulate(Currents.of(x), Condition(None, theta), Neuron(**constants)).spikes
    expected = simulate_reference(
        Currents.of(x), Condition(None, theta), Neuron(**constants)
    ).spikes
    assert torch.equal(spikes, expected)
    return spikes


def test_a_geometry_is_planned_once_and_values_are_read_each_time(
    planned: list[torch.Size],
) -> None:
    theta = torch.full((1, 4), 0.5)
    for _ in range(3):
        run(torch.randn(3, 2, 4, 5), theta)
        theta += 0.3
    run(torch.randn(3, 2, 4, 5), torch.zeros(1, 4))
    assert planned == [(3, 2, 4, 5)]


@pytest.mark.parametrize(
    "change",
    [
        lambda x, theta: (x[:, :1], theta, {}),
        lambda x, theta: (x.transpose(1, 2).contiguous().transpose(1, 2), theta, {}),
        lambda x, theta: (x.half(), theta, {}),
        lambda x, theta: (x, theta.expand(3, 4), {}),
        lambda x, theta: (x, theta.repeat(3, 2)[:, ::2], {}),
        lambda x, theta: (x, theta, {"decay": 0.5}),
        lambda x, theta: (x, theta, {"detach_reset": True}),
    ],
)
def test_whatever_else_differs_is_another_geometry(change, planned: list[torch.Size]) -> None:
    x, theta = torch.randn(3, 2, 4, 5), torch.rand(1, 4)
    run(x, theta)
    changed_x, changed_theta, constants = change(x, theta)
    run(changed_x, changed_theta, **constants)
    assert len(planned) == 2


def test_what_is_refused_stays_refused(planned: list[torch.Size]) -> None:
    for _ in range(2):
        with pytest.raises(ShapeError, match="parameters of shape"):
            simulate(Currents.of(torch.randn(3, 2, 4)), Condition(None, torch.ones(1, 3)), Neuron())
        with pytest.raises(sf.SpikefoldError, match="float64"):
            simulate(Currents.of(torch.randn(3, 2, 4).double()), Condition(), Neuron())


def test_plans_are_few_and_hold_no_tensor(
    planned: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_plan, "_MOST", 3)
    whole = torch.randn(3, 2, 12, 5)
    kept = []
    for width in range(1, 11):
        x, theta = whole[:, :, :width].requires_grad_(), torch.randn(1, width)
        kept += [weakref.ref(x), weakref.ref(theta)]
        run(x, theta).sum().backward()
        assert len(_plan._plans) <= 3
    del x, theta
    gc.collect()
    assert not any(ref() is not None for ref in kept)
    assert len(planned) == 10


@pytest.mark.parametrize("size", [1, 2000])
def test_an_input_replaced_before_the_backward_pass_is_not_read_as_the_old_one(size: int) -> None:
    x, grad = torch.randn(1, 8, 4, requires_grad=True), torch.randn(1, 8, 4)
    spikes = simulate(Currents.of(x), Condition(), Neuron()).spikes
    x.data = torch.randn(1, size, 4)
    with pytest.raises(RuntimeError, match=r"must match|broadcast shape"):  # by no kernel
        torch.autograd.grad(spikes, x, grad)


def test_threads_share_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "_MOST", 2)
    wrong: list[BaseException] = []

    def work(seed: int) -> None:
        chance = torch.Generator().manual_seed(seed)
        try:
            for i in range(60):
                width = 1 + (i + seed) % 7
                run(torch.randn(3, 2, width, generator=chance), torch.zeros(1, width))
        except BaseException as error:  # a thread's own would be lost
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.usefixtures("as_user")
def test_running_statistics_of_other_sizes_reach_no_compiled_code() -> None:
    """It writes as many numbers as the mean has: a shorter variance was written past its end."""
    running = Statistics(torch.zeros(64), torch.zeros(4))
    observed = Statistics(torch.ones(1, 64), torch.ones(1, 64))
    with pytest.raises(RuntimeError):
        sf.dynamics.update_running(running, observed, 0.1, torch.tensor(0), 8)
