"""Any pair of norms, after the connection and of the membrane, in every model."""

from itertools import product
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import nn

import spikefold as sf
from spikefold.errors import ConfigError
from spikefold.models import AfterConnection, Arguments, Norm, build
from spikefold.nn import CurrentAffine

CLASSES = {
    "bn": nn.BatchNorm2d, "tdbn": sf.TdBN, "bntt": sf.BNTT, "tebn": sf.TEBN, "tab": sf.TAB,
    "none": nn.Identity,
}  # fmt: skip
PAIRS = list(product(get_args(AfterConnection), get_args(Norm)))


def network(after: AfterConnection, norm: Norm, name: str = "small") -> sf.models.Network:
    """A small one with some running statistics, in evaluation."""
    arguments = Arguments(
        num_classes=3,
        in_channels=2,
        image_size=8,
        norm=norm,
        current_norm=after,
        steps=3,
        width=0.1,
    )
    torch.manual_seed(0)
    made = build(name, arguments)
    for x in torch.rand(3, 8, 2, 8, 8):
        made(x)
    return made.eval()


@pytest.mark.parametrize(("after", "norm"), PAIRS)
def test_any_pair_learns_folds_and_is_saved(
    after: AfterConnection, norm: Norm, tmp_path: Path
) -> None:
    made, x = network(after, norm), torch.rand(4, 2, 8, 8)
    assert {type(layer.norm) for layer in made.layers().values()} == {CLASSES[after]}
    made(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    if norm != "none":
        folded = sf.fold(made)
        assert sf.verify(made, folded, [x]).mismatches == 0
        made = folded
    if after != "none":
        made = sf.fuse_conv_bn(made)
        left = nn.Identity if after in ("bn", "tdbn") else CurrentAffine
        assert {type(layer.norm) for layer in made.layers().values()} == {left}
    sf.save(made, tmp_path / "a.safetensors")
    assert torch.equal(sf.load(tmp_path / "a.safetensors")(x), made(x))


@pytest.mark.parametrize("after", get_args(AfterConnection))
def test_shortcuts_have_the_same_norm(after: AfterConnection) -> None:
    """Published tdBN halves the variance where two branches add."""
    made = network(after, "mpbn", "resnet20")
    found = [module for module in made.modules() if type(module) is CLASSES[after]]
    assert len(found) >= 19 + 3
    if after == "tdbn":
        alphas = {name: m.alpha for name, m in made.named_modules() if isinstance(m, sf.TdBN)}
        added = {name for name in alphas if ".second." in name or ".shortcut." in name}
        assert len(added) == 8 + 3
        assert {alphas[name] for name in added} == {2**-0.5}
        assert {alphas[name] for name in alphas.keys() - added} == {1.0}


def test_a_rate_is_where_mpbn_begins() -> None:
    """Rate = P(N(beta, 1) > threshold), by the error function."""
    made = build("small", Arguments(rate=0.1, neuron=sf.Neuron(threshold=0.7)))
    beta = made.layers()["features.0"].lif.norm.bias
    rate = 0.5 * torch.erfc((0.7 - beta.double()) / 2**0.5)
    torch.testing.assert_close(rate, torch.full_like(rate, 0.1), rtol=1e-6, atol=0)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"current_norm": "tebm"}, "current_norm must be one of bn, tdbn, bntt, tebn, tab, none"),
        ({"current_norm": "tab"}, "model: current_norm tab needs steps"),
        ({"rate": 0.1, "norm": "none"}, "rate is where MPBN begins, but norm is none"),
        ({"rate": 1.0}, r"rate must lie in \(0, 1\)"),
    ],
)
def test_what_does_not_go_together(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Arguments(**options)  # type: ignore[arg-type]


def test_another_number_of_steps_is_one_line() -> None:
    with pytest.raises(sf.ShapeError, match=r"BNTT has maps for 3 time steps, but .* has 2"):
        network("bntt", "mpbn")(torch.rand(1, 2, 8, 8), steps=2)
