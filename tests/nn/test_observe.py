"""Watching neurons: every call counts, nothing about what runs changes, hooks are torch's own."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import spikefold as sf
from spikefold.dynamics._kernels import _fused
from spikefold.errors import ConfigError, FoldError
from spikefold.nn import Call, observing


def unit(norm: sf.MPBN | None = None) -> sf.SpikingLayer:
    return sf.SpikingLayer(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), sf.LIF(norm))


class Twice(nn.Module):
    """Calls one layer of neurons twice, and steps through another."""

    def __init__(self) -> None:
        super().__init__()
        self.lif, self.stepped = sf.LIF(sf.MPBN(3)), sf.LIF(sf.MPBN(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.lif(self.lif(x) + x)
        state, out = None, []
        for y_t in y:
            s, state = self.stepped.step(y_t, state)
            out.append(s)
        return torch.stack(out).mean(0)


def seen(network: nn.Module, x: Tensor) -> list[tuple[str, Tensor]]:
    found: list[tuple[str, Tensor]] = []

    def see(name: str, call: Call) -> None:
        found.append((name, call.fired.spikes))

    with observing(network, see):
        network(x)
    return found


def test_every_call_of_every_layer_is_seen() -> None:
    found = seen(Twice().eval(), torch.randn(3, 2, 3))
    assert [name for name, _ in found] == ["lif", "lif", "stepped", "stepped", "stepped"]
    assert [len(spikes) for _, spikes in found] == [3, 3, 1, 1, 1]


def test_watching_changes_nothing_about_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The joined kernels run, watched or not, on the same arguments."""
    layer, x = unit(sf.MPBN(6)).eval(), torch.randn(3, 2, 3, 8, 8)
    ran: list[Any] = []
    run = _fused._run

    def noted(arguments: Any) -> Any:
        ran.append(arguments)
        return run(arguments)

    monkeypatch.setattr(_fused, "_run", noted)
    with torch.no_grad():
        layer(x)
        (_, spikes), *others = seen(layer, x)
    assert not others
    assert len(ran) == 2
    for one, other in zip(*ran, strict=True):
        if isinstance(one, Tensor):
            assert torch.equal(one, other)
        else:
            assert one == other
    assert ran[0].current_eps is not None  # the batch norm was among them
    assert torch.equal(spikes, layer(x))


def test_observers_belong_to_their_call_and_thread() -> None:
    layer, x = unit(), torch.randn(3, 2, 3, 8, 8)
    found: list[str] = []
    with observing(layer, lambda name, call: found.append(name)):
        thread = threading.Thread(target=lambda: layer(x))
        thread.start()
        thread.join()
        copy.deepcopy(layer)(x)
        unit()(x)
        assert found == []
        with observing(layer, lambda name, call: found.append(f"inner {name}")):
            layer(x)
        assert found == ["lif", "inner lif"]
    layer(x)
    assert len(found) == 2


def test_the_final_method_cannot_be_overridden() -> None:
    with pytest.raises(TypeError, match="Mine: fire is final: override condition or integrate"):

        class Mine(sf.LIF):
            def fire(self, currents: Any, state: Any = None) -> Any:  # type: ignore[misc]
                return super().fire(currents, state)

    class Mixin:
        def fire(self, currents: Any, state: Any = None) -> Any:
            return None

    with pytest.raises(TypeError, match="Mixed: fire is final"):

        class Mixed(Mixin, sf.LIF):  # type: ignore[misc]
            pass


def test_neurons_of_ones_own_are_seen() -> None:
    class Silent(sf.SpikingNeuron):
        def integrate(self, currents: sf.dynamics.Currents, state: sf.State | None) -> Any:
            x, _ = sf.dynamics.compute(currents)
            return sf.dynamics.Fired(torch.zeros_like(x), torch.zeros_like(x[0]))

    layer = unit()
    layer.lif = Silent(sf.Neuron())
    ((name, spikes),) = seen(layer, torch.randn(3, 2, 3, 8, 8))
    assert name == "lif"
    assert spikes.sum() == 0


# ------------------------------------------------------------------ hooks, as with torch's layers


def test_a_hook_on_mpbn_sees_every_step_and_may_change_it() -> None:
    lif, x = sf.LIF(sf.MPBN(3)).eval(), torch.randn(4, 5, 3)
    assert lif.norm is not None
    plain, potentials = lif(x), []
    handle = lif.norm.register_forward_hook(lambda module, args, h: potentials.append(args[0]))
    assert torch.equal(lif(x), plain)
    assert [list(u.shape) for u in potentials] == [[5, 3]] * 4
    handle.remove()
    lif.norm.register_forward_hook(lambda module, args, h: torch.full_like(h, 2.0))
    assert lif(x).min() == 1
    with (
        pytest.raises(ConfigError, match="a function, or a module with hooks"),
        sf.backend("fused"),
    ):
        lif(x)


def test_statistics_of_a_watched_mpbn_are_those_of_a_plain_one() -> None:
    watched, plain = sf.LIF(sf.MPBN(3)), sf.LIF(sf.MPBN(3))
    watched.norm.register_forward_pre_hook(lambda module, args: None)
    for x in torch.randn(3, 4, 5, 3):
        for neuron in (watched, plain):
            neuron(x).sum().backward()
    for one, other in zip(watched.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(one, other)
    for one, other in zip(watched.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_pruned_gains_learn_and_stay_pruned() -> None:
    lif, x = sf.LIF(sf.MPBN(4)), torch.randn(4, 5, 4)
    prune.l1_unstructured(lif.norm, "weight", amount=2)
    optimizer = torch.optim.SGD(lif.parameters(), lr=0.1)
    lif(x).square().sum().backward()
    optimizer.step()
    mask = lif.norm.weight_mask
    kept = lif.norm.weight_orig[mask == 1]
    assert (kept != 1).all()
    lif.eval()(x)
    assert torch.equal(lif.norm.weight, lif.norm.weight_orig * mask)


def test_parametrized_gains_learn() -> None:
    lif, x = sf.LIF(sf.MPBN(4)), torch.randn(4, 5, 4)
    nn.utils.parametrize.register_parametrization(lif.norm, "weight", nn.Softplus())
    lif(x).square().sum().backward()
    grad = lif.norm.parametrizations.weight.original.grad
    assert grad.abs().min() > 0


@pytest.mark.parametrize("where", ["norm", "lif", "lif.norm"])
def test_a_forward_patched_onto_a_module_is_called(where: str) -> None:
    layer, x = unit(sf.MPBN(6)), torch.randn(3, 2, 3, 8, 8)
    module = layer.get_submodule(where)
    calls, forward = [], module.forward

    def patched(*args: Any) -> Any:
        calls.append(args)
        return forward(*args)

    module.forward = patched  # type: ignore[method-assign]
    layer(x)
    assert len(calls) == (3 if where == "lif.norm" else 1)


def test_hooks_of_all_modules_see_all_modules() -> None:
    layer, names = unit(sf.MPBN(6)), []
    handle = nn.modules.module.register_module_forward_hook(
        lambda module, args, output: names.append(type(module).__name__)
    )
    try:
        layer(torch.randn(2, 2, 3, 8, 8))
    finally:
        handle.remove()
    assert names == ["Conv2d", "BatchNorm2d", "MPBN", "MPBN", "LIF", "SpikingLayer"]


# ------------------------------------------------------------------ spikes as outputs


@pytest.mark.parametrize("training", [True, False])
def test_with_spikes_gives_what_fires_and_shares_the_tensors(training: bool) -> None:
    network = sf.models.resnet20(width=0.0625, steps=2, image_size=16).train(training)
    x = torch.randn(3, 3, 16, 16)
    plain = copy.deepcopy(network)
    expected = seen(plain, x)
    watched = sf.with_spikes(network)
    output, spikes = watched(x)
    assert list(spikes) == [name for name, _ in expected]
    assert all(map(torch.equal, spikes.values(), (s for _, s in expected)))
    for one, other in zip(network.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)  # statistics went on in the network itself
    output.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    watched.double()
    assert {t.dtype for t in network.state_dict().values()} == {torch.float64, torch.int64}


def test_with_spikes_takes_loops_and_steps() -> None:
    network, x = Twice().eval(), torch.randn(3, 2, 3)
    output, spikes = sf.with_spikes(network)(x)
    assert torch.equal(output, network(x))
    assert {name: list(s.shape) for name, s in spikes.items()} == {
        "lif": [6, 2, 3],
        "stepped": [3, 2, 3],
    }
    folded_output, folded_spikes = sf.with_spikes(sf.fold(network))(x)
    assert torch.equal(folded_output, output)
    assert all(torch.equal(folded_spikes[name], s) for name, s in spikes.items())
    record = sf.verify(sf.with_spikes(network), sf.with_spikes(sf.fold(network)), [x])
    assert record.mismatches == 0
    assert record.spikes == 9 * 2 * 3


def test_with_spikes_refuses_what_it_cannot_see() -> None:
    with pytest.raises(ConfigError, match="no spiking neurons"):
        sf.with_spikes(nn.Linear(3, 3))
    layer = unit()
    layer.lif.register_forward_hook(lambda *args: None)
    with pytest.raises(ConfigError, match="layer 'lif': neurons with hooks"):
        sf.with_spikes(layer)

    class OwnStep(sf.LIF):
        def step(self, x: Tensor, state: sf.State | None = None) -> tuple[Tensor, sf.State]:
            return super().step(x * 2, state)

    with pytest.raises(ConfigError, match="or step of their own"):
        sf.with_spikes(OwnStep())
    with pytest.raises(FoldError, match="fold the network first"):
        sf.fold(sf.with_spikes(unit(sf.MPBN(6))))


def test_threads_do_not_share_their_spikes() -> None:
    network = sf.with_spikes(sf.models.small(in_channels=1, steps=2, width=0.25).eval())
    images = torch.rand(8, 4, 1, 8, 8)
    with torch.no_grad():
        expected = [network(x)[1]["features.3.lif"] for x in images]

        def run(x: Tensor) -> list[Tensor]:
            with torch.no_grad():
                return [network(x)[1]["features.3.lif"] for _ in range(10)]

        with ThreadPoolExecutor(4) as executor:
            for found, spikes in zip(executor.map(run, images), expected, strict=True):
                assert all(torch.equal(one, spikes) for one in found)
