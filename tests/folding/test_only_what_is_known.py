"""Transforms act on what they know, by every path to it, and refuse the rest by name."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import spikefold as sf
from spikefold.errors import FoldError
from spikefold.folding import FUSIONS, fuse
from spikefold.nn import OverTime


def trained(model: nn.Module, *shape: int) -> nn.Module:
    """With statistics, gains and shifts that are not those of the start."""
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(shape))
        for module in model.modules():
            if isinstance(module, sf.MPBN | nn.modules.batchnorm._BatchNorm):
                module.weight.uniform_(0.5, 1.5)[::2].mul_(-1)
                module.bias.uniform_(-0.3, 0.3)
    return model.eval()


def unit(connection: nn.Module | None = None, lif: sf.SpikingNeuron | None = None) -> Any:
    return sf.SpikingLayer(
        connection or nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        lif or sf.LIF(sf.MPBN(6)),
    )


X = (3, 8, 3, 6, 6)


# ------------------------------------------------------------------ fold: every path


class TwoNames(nn.Module):
    """One layer of neurons by two names, in two units and beside them."""

    def __init__(self) -> None:
        super().__init__()
        lif = sf.LIF(sf.MPBN(6))
        self.units = nn.Sequential(
            unit(lif=lif), unit(nn.Conv2d(6, 6, 3, padding=1, bias=False), lif)
        )
        self.again = lif

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.units(x) * 2.0).mean(0)


def test_neurons_are_folded_by_every_name() -> None:
    network = trained(TwoNames(), *X)
    folded = sf.fold(network)
    assert not any(isinstance(module, sf.MPBN) for module in folded.modules())
    assert folded.again is folded.units[0].lif is folded.units[1].lif
    assert sf.verify(network, folded, [torch.randn(X)]).mismatches == 0


def test_a_normalization_by_another_name_is_no_stranger() -> None:
    class WithNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lif = sf.LIF(sf.MPBN(3))
            assert self.lif.norm is not None
            self.norms = nn.ModuleList([self.lif.norm])

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(x)

    network = trained(WithNorm(), 4, 9, 3)
    folded = sf.fold(network)
    assert torch.equal(folded(x := torch.randn(4, 9, 3)), network(x))
    assert isinstance(network.norms[0], sf.MPBN)


class OwnForward(sf.LIF):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class OwnStep(sf.LIF):
    def step(self, x: Tensor, state: sf.State | None = None) -> tuple[Tensor, sf.State]:
        return super().step(x * 2, state)


class OwnIntegrate(sf.LIF):
    def integrate(self, currents: Any, state: Any) -> Any:
        return super().integrate(currents._replace(input=currents.input * 2), state)


class Shifted(sf.MPBN):
    """A normalization of one's own, by what it returns."""

    def normalization(self) -> sf.dynamics.Normalization:
        norm = super().normalization()
        return norm._replace(shift=norm.shift + 0.25)


class Called(sf.MPBN):
    """One that computes for itself."""

    def forward(self, u: Tensor, t: int = 0) -> Tensor:
        return super().forward(u, t).tanh()


@pytest.mark.parametrize("kind", [OwnForward, OwnStep, OwnIntegrate])
def test_neurons_with_methods_of_their_own_are_not_replaced(kind: type[sf.LIF]) -> None:
    method = kind.__name__.removeprefix("Own").lower()
    with pytest.raises(FoldError, match=rf"layer 'lif': {kind.__name__} has a {method} of its own"):
        sf.fold(unit(lif=kind(sf.MPBN(6))))


@pytest.mark.parametrize("method", ["step", "integrate", "fire", "forward"])
def test_methods_patched_onto_neurons_are_named(method: str) -> None:
    layer = unit()
    setattr(layer.lif, method, getattr(layer.lif, method))
    with pytest.raises(FoldError, match=f"layer 'lif': .*{method} of its own"):
        sf.fold(layer)


def test_the_default_dtype_does_not_matter() -> None:
    network = trained(unit(), *X)
    expected = sf.fold(network).lif.theta
    for dtype in (torch.float16, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            assert torch.equal(sf.fold(network).lif.theta, expected)
        finally:
            torch.set_default_dtype(torch.float32)


def test_a_normalization_of_ones_own_runs_and_folds_as_it_runs() -> None:
    network = trained(unit(lif=sf.LIF(Shifted(6))), *X)
    plain = copy.deepcopy(network)
    plain.lif.norm.__class__ = sf.MPBN
    x = torch.randn(X)
    assert not torch.equal(network(x), plain(x))
    assert sf.verify(network, sf.fold(network), [x], per_step=True).mismatches == 0


@pytest.mark.usefixtures("as_user")
def test_a_normalization_with_a_forward_of_its_own_runs_and_folds_if_it_is_monotone() -> None:
    lif = trained(sf.LIF(Called(3), threshold=0.3), 4, 50, 3)
    assert lif(torch.full((2, 2, 3), 1e6)).sum() > 0
    folded = sf.fold(lif)
    assert sf.verify(lif, folded, [torch.randn(4, 5000, 3)], per_step=True).mismatches == 0
    assert -1 in folded.polarity

    class Wave(Called):
        def forward(self, u: Tensor, t: int = 0) -> Tensor:
            return torch.sin(super().forward(u, t) * 5)

    with pytest.raises(FoldError, match=r"layer '': its firing condition is not monotone .* u = "):
        sf.fold(sf.LIF(Wave(3)))


def test_hooks_on_neurons_and_their_norm_are_named() -> None:
    layer = unit()
    handle = layer.lif.register_forward_hook(lambda *args: None)
    with pytest.raises(FoldError, match="layer 'lif': it carries hooks"):
        sf.fold(layer)
    handle.remove()
    handle = layer.lif.norm.register_forward_pre_hook(lambda *args: None)
    with pytest.raises(FoldError, match="layer 'lif': its MPBN: it carries hooks"):
        sf.fold(layer)
    handle.remove()
    prune.l1_unstructured(layer.lif.norm, "weight", amount=1)
    with pytest.raises(FoldError, match=r"layer 'lif.norm': weight is computed .*prune.remove"):
        sf.fold(layer)
    prune.remove(layer.lif.norm, "weight")
    sf.fold(layer)


def test_what_holds_nothing_to_fold_passes_untouched() -> None:
    class Own(sf.SpikingNeuron):
        def integrate(self, currents: Any, state: Any) -> Any:
            return sf.dynamics.simulate(currents, sf.dynamics.PLAIN, self.constants)

    network = trained(nn.Sequential(unit(), Own(sf.Neuron()), sf.LIF(), OwnForward()), *X)
    folded = sf.fold(network)
    assert [type(module) for module in folded.children()] == [
        sf.SpikingLayer,
        Own,
        sf.LIF,
        OwnForward,
    ]
    assert torch.equal(folded(x := torch.randn(X)), network(x))


# ------------------------------------------------------------------ fuse


def close(model: nn.Module, fused: nn.Module, *shape: int) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    model, fused = copy.deepcopy(model).double(), copy.deepcopy(fused).double()
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_module_that_stands_twice_in_a_row_hides_nothing() -> None:
    """named_children leaves it out the second time; then others look like neighbours."""
    act = nn.Hardswish()
    row = nn.Sequential(
        nn.Conv2d(3, 3, 1), act, nn.Conv2d(3, 3, 1), act, nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1),
        nn.BatchNorm2d(3),
    )  # fmt: skip
    model = trained(row, 4, 3, 5, 5)
    fused = sf.fuse_conv_bn(model)
    assert [type(module).__name__ for module in fused.children()][-3:] == [
        "BatchNorm2d",
        "Conv2d",
        "Identity",
    ]
    close(model, fused, 4, 3, 5, 5)


def test_one_convolution_before_two_norms_is_fused_into_each() -> None:
    conv = nn.Conv2d(3, 3, 1)
    model = trained(
        nn.Sequential(conv, nn.BatchNorm2d(3), nn.Tanh(), conv, nn.BatchNorm2d(3)), 4, 3, 5, 5
    )
    fused = sf.fuse_conv_bn(model)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in fused.modules()) == 0
    close(model, fused, 4, 3, 5, 5)


def test_units_by_two_names_are_fused_once() -> None:
    layer = unit(nn.Conv2d(6, 6, 3, padding=1))
    model = nn.Sequential(unit(), layer, layer)
    trained(model, *X)
    fused = sf.fuse_conv_bn(sf.fold(model))
    assert fused[1] is fused[2]
    record = sf.verify(sf.fold(model), fused, [torch.randn(X)], per_step=True)
    assert record.mismatch_rate < 1e-3


class Doubling(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class OwnNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


class Reversed(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        for module in reversed(self):
            input = module(input)
        return input


class OwnUnit(sf.SpikingLayer):
    def forward(self, x: Tensor, shortcut: Tensor | None = None) -> Tensor:
        return super().forward(x * 2, shortcut)


class Loop(nn.Module):
    """Its forward depends on the number of steps: it cannot be followed."""

    def __init__(self, conv: nn.Module, bn: nn.Module) -> None:
        super().__init__()
        self.conv, self.bn = conv, bn

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.bn(self.conv(x[t])) for t in range(len(x))])


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
    return module


def patched(module: nn.Module) -> nn.Module:
    module.forward = lambda x: x  # type: ignore[method-assign]
    return module


CONV, BN = (lambda: nn.Conv2d(3, 3, 1)), (lambda: nn.BatchNorm2d(3))
STRANGE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "subclass of a convolution": (
        lambda: nn.Sequential(Doubling(3, 3, 1), BN()),
        "layer '0': Doubling cannot be fused: a subclass",
    ),
    "subclass of a batch norm": (
        lambda: nn.Sequential(CONV(), OwnNorm(3)),
        "layer '0': OwnNorm cannot be fused: a subclass",
    ),
    "hook on a convolution": (
        lambda: nn.Sequential(hooked(CONV()), BN()),
        "layer '0': Conv2d cannot be fused: it carries hooks",
    ),
    "hook on a batch norm": (
        lambda: nn.Sequential(CONV(), hooked(BN())),
        "layer '0': BatchNorm2d cannot be fused: it carries hooks",
    ),
    "patched forward": (
        lambda: nn.Sequential(patched(CONV()), BN()),
        "layer '0': Conv2d cannot be fused: it carries a forward of its own",
    ),
    "weight normalization": (
        lambda: nn.Sequential(parametrizations.weight_norm(CONV()), BN()),
        "parametrized: torch.nn.utils.parametrize.remove_parametrizations",
    ),
    "pruning": (
        lambda: nn.Sequential(prune.l1_unstructured(CONV(), "weight", amount=2), BN()),
        "prune.remove",
    ),
    "row that runs backwards": (
        lambda: nn.Sequential(nn.Identity(), Reversed(CONV(), BN())),
        "nothing to fuse",
    ),
    "unit with a forward of its own": (
        lambda: nn.Sequential(nn.Identity(), OwnUnit(CONV(), BN(), sf.LIF())),
        r"module '1' \(OwnUnit\) cannot be followed: .*; so what its batch norm "
        "'norm' follows",
    ),
    "batch norm of a module that cannot be followed": (
        lambda: nn.Sequential(CONV(), Loop(CONV(), BN())),
        r"module '1' \(Loop\) cannot be followed: .*'bn' follows",
    ),
    "sizes that do not fit": (
        lambda: nn.Sequential(nn.Linear(3, 7), nn.BatchNorm1d(5)),
        "layer '0': 7 channels go into a batch normalization of 5",
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_would_be_fused_wrongly_is_refused_by_name(name: str) -> None:
    make, message = STRANGE[name]
    model = make()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(FoldError, match=message):
        sf.fuse_conv_bn(model)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_a_type_of_ones_own_is_fused_when_the_table_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FUSIONS, Doubling, lambda conv, norm: fuse(as_conv(conv), norm))

    def as_conv(conv: nn.Conv2d) -> nn.Conv2d:
        plain = nn.Conv2d(3, 3, 1)
        plain.load_state_dict({name: value * 2 for name, value in conv.state_dict().items()})
        return plain

    model = trained(nn.Sequential(Doubling(3, 3, 1), BN()), 4, 3, 5, 5)
    close(model, sf.fuse_conv_bn(model), 4, 3, 5, 5)


def test_a_linear_layer_is_fused_for_features_only() -> None:
    """Of [N, C, L] BatchNorm1d normalizes C, and the linear layer makes L."""
    model = trained(nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5)), 8, 5)
    fused = sf.fuse_conv_bn(model)
    close(model, fused, 8, 5)
    model(torch.randn(8, 5, 5))
    with pytest.raises(sf.ShapeError, match="another dimension"):
        fused(torch.randn(8, 5, 5))
    layer = trained(sf.SpikingLayer(nn.Linear(5, 4), nn.BatchNorm1d(4), sf.LIF()), 3, 8, 5)
    record = sf.verify(layer, sf.fuse_conv_bn(layer), [torch.randn(3, 8, 5)], per_step=True)
    assert record.mismatches == 0


def test_other_rows_and_norms_pass_untouched() -> None:
    row = nn.Sequential(CONV(), BN(), nn.AvgPool2d(2), BN(), CONV(), nn.GroupNorm(3, 3))
    model = trained(row, 4, 3, 6, 6)
    fused = sf.fuse_conv_bn(model)
    names = ["Conv2d", "Identity", "AvgPool2d", "BatchNorm2d", "Conv2d", "GroupNorm"]
    assert [type(module).__name__ for module in fused.children()] == names
    close(model, fused, 4, 3, 6, 6)


def test_frozen_weights_stay_frozen() -> None:
    for bias in (True, False):
        row = OverTime(nn.Conv2d(3, 3, 1, bias=bias), BN()).requires_grad_(False)
        fused = sf.fuse_conv_bn(row)
        assert not any(parameter.requires_grad for parameter in fused.parameters())
