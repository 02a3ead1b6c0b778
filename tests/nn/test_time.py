"""Neurons and normalizations that know time: parameters of each step, learnt decays, streams."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import spikefold as sf
from spikefold.data import TensorSamples
from spikefold.errors import ConfigError, FoldError, ShapeError
from spikefold.folding import from_ordinal, to_ordinal
from spikefold.nn import synchronize_statistics
from spikefold.nn._running import Processes
from spikefold.training import ModelConfig, recalibrate


def randomized(norm: sf.MPBN, seed: int = 0) -> sf.MPBN:
    """Gains of both signs, statistics of their own at each step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.2)
    return norm.eval()


# ------------------------------------------------------------------ MPBN a step


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("shape", [(3,), (3, 4, 4)])
def test_each_step_is_a_batch_norm_of_its_own(shape: tuple[int, ...], momentum: Any) -> None:
    """Without reset and leak: what reaches step t is x[t] alone, so torch's own can be asked."""
    lif = sf.LIF(sf.MPBN(shape, steps=4, momentum=momentum), decay=0.0, threshold=0.2)
    torchs = [nn.BatchNorm1d(math.prod(shape), momentum=momentum) for _ in range(4)]
    for _ in range(3):
        x = torch.randn(4, 6, 3, 4, 4) * torch.arange(1, 5).reshape(-1, 1, 1, 1, 1)
        spikes = lif(x)
        for t, norm in enumerate(torchs):
            flat = x[t].flatten(1) if len(shape) > 1 else x[t].movedim(1, -1).reshape(-1, 3)
            h = norm(flat).reshape(x[t].shape if len(shape) > 1 else (6, 4, 4, 3))
            h = h if len(shape) > 1 else h.movedim(-1, 1)
            assert ((h > 0.2) != (spikes[t] > 0)).float().mean() < 1e-3
    assert lif.norm is not None
    for name in ("running_mean", "running_var"):
        expected = torch.stack([getattr(norm, name) for norm in torchs])
        torch.testing.assert_close(getattr(lif.norm, name).flatten(1), expected)
    assert lif.norm.num_batches_tracked.tolist() == [3] * 4


@given(
    steps=st.integers(1, 8),
    element=st.booleans(),
    last=st.booleans(),
    reset=st.sampled_from(["hard", "soft"]),
    learnt=st.sampled_from(["no", "layer", "channel"]),
    threshold=st.sampled_from([0.5, -0.25]),
    seed=st.integers(0, 10**6),
)
@settings(max_examples=150)
@pytest.mark.usefixtures("as_user")
def test_thresholds_of_each_step_fire_the_same_spikes(
    steps: int, element: bool, last: bool, reset: Any, learnt: str, threshold: float, seed: int
) -> None:
    """Every step meets its thresholds within 64 ulp, then goes on from there."""
    shape = (5, 3, 2) if element else (5,)
    norm = randomized(sf.MPBN(shape, steps=steps), seed)
    lif: sf.LIF = sf.LIF(norm, decay=0.25, threshold=threshold, reset=reset)
    if learnt != "no":
        channels = 5 if learnt == "channel" else None
        lif = sf.PLIF(norm, channels=channels, threshold=threshold, reset=reset)
    folded = sf.fold(lif.eval())
    assert folded.theta.shape == (norm.weight.shape if steps > 1 else shape)
    theta = folded.theta.reshape(steps, *shape).clamp(-1e30, 1e30)
    x = theta.reshape(steps, 1, *shape, *(() if element else (1, 1)))
    x = from_ordinal(to_ordinal(x) + torch.arange(-64, 65).reshape(1, -1, 1, 1, 1), torch.float32)
    x = x.expand(steps, 129, 5, *(shape[1:] if element else (3, 2))).clone()
    if learnt != "no" or steps > 1:  # a half of them at random potentials
        x[:, ::2] = torch.randn(x[:, ::2].shape, generator=torch.Generator().manual_seed(seed))
    x = x.movedim(2, -1).contiguous().movedim(-1, 2) if last else x
    record = sf.verify(lif, folded, [x], per_step=True)
    assert record.mismatches == 0
    with sf.backend("reference"):
        assert torch.equal(lif(x), folded(x))
    assert torch.equal(lif(x), folded(x))


def test_a_shared_norm_is_where_those_of_each_step_begin() -> None:
    shared = randomized(sf.MPBN(3))
    begun = shared.per_step(4)
    x = torch.randn(4, 20, 3)
    assert torch.equal(sf.LIF(begun).eval()(x), sf.LIF(shared).eval()(x))
    assert not begun.training
    with pytest.raises(ConfigError, match="already has sets for 4 steps"):
        begun.per_step(4)
    # nothing that was set is forgotten
    shared = sf.MPBN(3, rate=0.1, threshold=1.0)
    shared.weight.requires_grad_(False)
    shared.processes = object.__new__(Processes)  # torch's group is a handle of other processes
    begun = shared.per_step(2)
    assert (begun.rate, begun.threshold) == (0.1, 1.0)
    assert begun.processes is shared.processes
    assert not begun.weight.requires_grad
    assert begun.bias.requires_grad
    with pytest.raises(ConfigError, match=r"rate=0.1 begins at a shift for"):
        sf.LIF(begun, threshold=0.5)


@pytest.mark.usefixtures("as_user")
def test_other_numbers_of_steps_are_refused() -> None:
    lif = sf.LIF(sf.MPBN(3, steps=4))
    for neuron in (lif, sf.fold(lif)):
        with pytest.raises(ShapeError, match="for 4 time steps, but the sequence has 5"):
            neuron(torch.randn(5, 8, 3))
    with pytest.raises(ConfigError, match=r"steps must lie in \[1, inf\)"):
        sf.MPBN(3, steps=0)
    with pytest.raises(ConfigError, match="mpbn-steps needs steps"):
        sf.models.small(norm="mpbn-steps")


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("training", [True, False])
def test_a_stream_equals_the_sequence_and_ends_with_it(training: bool) -> None:
    one, other = (sf.PLIF(randomized(sf.MPBN(3, steps=4)), channels=3) for _ in range(2))
    x = torch.randn(4, 20, 3)
    expected = one.train(training)(x)
    state, spikes = None, []
    for x_t in x:
        s, state = other.train(training).step(x_t, state)
        spikes.append(s)
    assert torch.equal(torch.stack(spikes), expected)
    assert state is not None
    assert state.t == 4
    for ours, theirs in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)
    for neuron in (one, sf.fold(one)):
        with pytest.raises(ShapeError, match="step 5 of a stream is past the last of 4"):
            neuron.step(x[0], state)
    with pytest.raises(ConfigError, match="a state is what step returned"):
        one.step(x[0], state.v)  # type: ignore[arg-type]


def test_hooks_see_every_step_with_its_own_map() -> None:
    lif = sf.LIF(randomized(sf.MPBN(3, steps=4))).eval()
    x = torch.randn(4, 20, 3)
    expected, steps = lif(x), []
    lif.norm.register_forward_hook(lambda module, args, h: steps.append(args[1]))
    assert torch.equal(lif(x), expected)
    assert steps == [0, 1, 2, 3]


def test_networks_with_a_set_a_step_are_saved_recalibrated_and_synchronized(
    tmp_path: Path,
) -> None:
    arguments: dict[str, Any] = {"norm": "mpbn-steps", "steps": 3, "width": 0.25, "in_channels": 1}
    network = sf.models.small(learn_decay="channel", **arguments)
    x = torch.rand(16, 1, 8, 8)
    for _ in range(3):
        network(x).square().sum().backward()
    folded = sf.fold(network)
    assert sf.verify(network, folded, [x]).mismatches == 0
    for name, model in (("network", network.eval()), ("folded", folded)):
        sf.save(model, tmp_path / name)
        again = sf.load(tmp_path / name)
        assert torch.equal(again(x), model(x))
        assert again.arguments.learn_decay == "channel"
    samples = TensorSamples(x, torch.arange(16) % 10)
    new = recalibrate(network, samples, batch_size=8)
    assert not torch.equal(
        new.features[0].lif.norm.running_mean, network.features[0].lif.norm.running_mean
    )
    torch.distributed.init_process_group(
        "gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        group = synchronize_statistics(network.train())
        torch.testing.assert_close(group(x), network(x), rtol=1e-4, atol=1e-4)
    finally:
        torch.distributed.destroy_process_group()


# ------------------------------------------------------------------ decays


def test_plif_begins_at_its_decay_and_learns_it() -> None:
    for channels, shape in ((None, ()), (3, (3,))):
        neuron = sf.PLIF(decay=0.25, channels=channels)
        assert neuron.w.shape == shape
        assert neuron.decay().flatten().tolist() == pytest.approx([0.25] * max(1, len(shape) * 3))
        x = torch.randn(5, 8, 3)
        assert torch.equal(neuron(x), sf.LIF(decay=neuron.decay().flatten()[0].item())(x))
        neuron(x).square().sum().backward()
        assert neuron.w.grad is not None
        assert neuron.w.grad.abs().min() > 0
    # tau = 1 / (1 - decay), w = -log(tau - 1): half of it is w = 0
    assert sf.PLIF(decay=0.5).w.item() == 0
    assert sf.PLIF(decay=0.75).w.item() == pytest.approx(-math.log(3))
    folded = sf.fold(sf.PLIF(sf.MPBN(3), decay=0.75))
    assert not list(folded.parameters())
    assert folded.decay().item() == 0.75


def test_a_learnt_decay_has_no_weight_decay() -> None:
    from spikefold.training import OptimizerConfig
    from spikefold.training._optimizer import make_optimizer

    network = sf.models.small(learn_decay="layer")
    decayed, others = make_optimizer(network, OptimizerConfig()).param_groups
    learnt = [p for name, p in network.named_parameters() if name.endswith(".w")]
    assert len(learnt) == 4
    for w in learnt:
        assert any(w is p for p in others["params"])
        assert not any(w is p for p in decayed["params"])
    assert others["weight_decay"] == 0


@pytest.mark.usefixtures("as_user")
def test_bad_decays_are_refused() -> None:
    for decay in (0.0, 1.0):
        with pytest.raises(ConfigError, match=r"decay must lie in \(0, 1\)"):
            sf.PLIF(decay=decay)
    with pytest.raises(ConfigError, match="learn_decay must be one of no, layer, channel"):
        sf.models.small(learn_decay="pixel")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"decay of shape \[4\]"):
        sf.PLIF(channels=4)(torch.randn(2, 3, 5))
    assert ModelConfig().options.learn_decay == "no"


def test_if_does_not_leak() -> None:
    x = torch.full((4, 1, 1), 0.2)
    assert sf.IF()(x).flatten().tolist() == [0, 0, 1, 0]


# ------------------------------------------------------------------ one's own


class Clip(sf.MembraneNorm):
    """A membrane norm as a user writes one: divides by a running maximum, no shift."""

    def __init__(self, channels: int) -> None:
        super().__init__((channels,))
        self.weight = nn.Parameter(torch.ones(channels))
        self.register_buffer("largest", torch.ones(channels))

    def normalization(self) -> sf.dynamics.Normalization:
        zero = torch.zeros(1, *self.shape)
        fixed = sf.dynamics.Statistics(zero, self.largest[None].square())
        return sf.dynamics.Normalization(self.weight[None], zero, 1e-5, fixed)


def test_a_membrane_norm_of_ones_own_trains_and_folds() -> None:
    norm = Clip(6)
    layer = sf.SpikingLayer(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), sf.LIF(norm))
    for x in torch.randn(3, 4, 8, 3, 9, 9):
        layer(x).square().sum().backward()
    norm.largest.uniform_(0.5, 2.0)
    norm.weight.data[::2] *= -1
    assert norm.weight.grad is not None
    with sf.backend("fused"):
        record = sf.verify(layer, sf.fold(layer), [torch.randn(4, 8, 3, 9, 9)], per_step=True)
    assert record.mismatches == 0


class Free(sf.LIF):
    """Neurons whose condition is a function of one's own."""

    shape = None
    function = staticmethod(torch.tanh)

    def condition(self) -> sf.dynamics.Condition:
        return sf.dynamics.Condition(lambda u, t: (self.function(u), None))


def test_a_free_function_runs_and_folds_where_a_shape_is_told() -> None:
    with pytest.raises(FoldError, match="does not tell for how many neurons"):
        sf.fold(Free())
    free = Free(sf.MPBN(3))  # whose shape it is
    folded = sf.fold(free)
    assert sf.verify(free, folded, [torch.randn(4, 500, 3)], per_step=True).mismatches == 0
    theta = torch.full((3,), math.atanh(0.5))
    torch.testing.assert_close(folded.theta, theta, rtol=1e-6, atol=0)


def test_a_function_that_is_not_finite_is_refused() -> None:
    def infinite(u: Tensor) -> Tensor:
        return 1 / (u * 0)

    free = Free(sf.MPBN(3))
    free.function = infinite  # type: ignore[method-assign]
    with pytest.raises(FoldError, match="NaN or infinite for some potential"):
        sf.fold(free)


# ------------------------------------------------------------------ one threshold for all neurons


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 6, 2)])
@pytest.mark.parametrize("theta", [[0.3], [0.3, -0.1, 0.9]])
def test_a_threshold_for_all_is_the_same_for_each_channel(
    theta: list[float], shape: tuple[int, ...], backend: Any
) -> None:
    whole, polarity = torch.tensor(theta), -torch.ones(len(theta))
    each = whole[:, None].expand(-1, shape[2]).clone()
    neuron = sf.Neuron(0.6, 0.4, "soft")
    for sign, signs in ((None, None), (polarity, polarity[:, None].expand_as(each).clone())):
        one = sf.FoldedLIF(sf.dynamics.Condition(None, whole, sign), neuron)
        many = sf.FoldedLIF(sf.dynamics.Condition(None, each, signs), neuron)
        x = torch.randn(shape, requires_grad=True)
        with sf.backend(backend):
            spikes, expected = one(x), many(x)
            assert torch.equal(spikes, expected)
            assert 0.1 < spikes.mean() < 0.9
            found, wanted = (torch.autograd.grad(s.sum(), x)[0] for s in (spikes, expected))
            assert torch.equal(found, wanted)
            state = None
            for t, x_t in enumerate(x.detach()):
                s, state = one.step(x_t, state)
                assert torch.equal(s, spikes[t])
        again = sf.FoldedLIF(sf.dynamics.Condition(None, 0 * whole, sign), neuron)
        again.load_state_dict(one.state_dict())
        assert torch.equal(again(x), spikes)
