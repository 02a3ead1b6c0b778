"""What a network is said to call, against what it calls when it runs."""

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikefold as sf
from spikefold.errors import FoldError, GraphError


class Mine(nn.Module):
    """Layers as attributes, one of them used twice, a shortcut, functions instead of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 1)
        self.lif, self.last = sf.LIF(sf.MPBN(4)), sf.LIF(sf.MPBN(4))
        self.rows = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))])
        self.fc = nn.Linear(4, 10)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        if scale != 1.0:
            raise ValueError(scale)
        y = self.bn(self.conv(x.flatten(0, 1)))
        s = self.lif(y.unflatten(0, x.shape[:2]))
        z = self.twice(F.max_pool2d(s.flatten(0, 1), 2))
        for row in self.rows:
            z = row(z) + self.twice(z)
        s = self.last(z.unflatten(0, (x.shape[0], x.shape[1])))
        return self.fc(s.mean((-2, -1))).mean(0)


def calls(model: nn.Module, *x: Tensor) -> list[str]:
    """Paths of the modules that are called, by hooks, in order."""
    made: list[str] = []
    model = copy.deepcopy(model)
    for name, module in model.named_modules():
        leads = bool(list(module.children())) or isinstance(module, sf.OverTime | sf.MembraneNorm)
        if not leads or isinstance(module, sf.SpikingNeuron):
            module.register_forward_pre_hook(lambda module, args, name=name: made.append(name))
    model(*x)
    return made


@pytest.mark.parametrize("name", [*sf.models.MODELS, "mine", "folded", "meta"])
def test_all_calls_in_the_order_in_which_they_are_made(name: str) -> None:
    match name:
        case "mine":
            model: nn.Module = Mine()
        case "folded":
            model = sf.fuse_conv_bn(sf.fold(sf.models.resnet20(width=0.1)))
        case _:
            build = sf.models.MODELS.get(name, sf.models.resnet19)
            model = build(width=0.0625, standardize=name == "vgg16", norm="mpbn")
    expected = calls(model, torch.randn(2, 2, 3, 32, 32))
    if name == "meta":
        model = model.to("meta")
    followed = [node for node in sf.graph(model).nodes if node.path]
    assert [node.path for node in followed] == expected
    assert all(node.module is model.get_submodule(node.path) for node in followed)


def test_what_is_fed_by_what_by_hand() -> None:
    graph = sf.graph(Mine())
    kinds = {node.name: (node.kind, node.inputs) for node in graph.nodes}
    assert kinds["bn"] == ("norm", ("conv",))
    assert kinds["max_pool2d"][0] == "pool"
    assert kinds["twice"] == ("connection", ("max_pool2d",))
    assert kinds["rows_0_1"] == ("norm", ("rows_0_0",))
    assert kinds["twice_1"] == ("connection", ("twice",))
    assert kinds["add"] == ("add", ("rows_0_1", "twice_1"))
    assert kinds["fc"] == ("connection", ("mean",))
    assert [node.name for node in graph.users(graph["twice"])] == ["rows_0_0", "twice_1"]
    assert graph["add"].what == "add"
    assert graph["rows_0_1"].what == "'rows.0.1' (BatchNorm2d)"


def test_a_unit_is_its_parts_and_its_shortcut() -> None:
    block = sf.models.resnet20(width=0.0625).features[6]
    graph = sf.graph(block)
    add = next(node for node in graph.nodes if node.kind == "add")
    assert [graph[name].path for name in add.inputs] == ["second.norm", "shortcut.2"]
    assert [node.path for node in graph.users(add)] == ["second.lif"]
    merged = {node.path for node in graph.nodes if node.merged}
    assert merged == {
        *(f"{unit}.{part}" for unit in ("first", "second") for part in ("connection", "norm")),
        *("shortcut.0", "shortcut.1", "shortcut.2"),
    }


FUNCTIONS = {
    "pool": (
        lambda x: F.avg_pool2d(x, 2),
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.adaptive_avg_pool2d(x, 1),
        lambda x: F.adaptive_max_pool2d(x, 1),
    ),
    "activation": (F.relu, torch.relu, lambda x: x.relu(), lambda x: F.relu(x, inplace=True),
                   F.relu6, torch.sigmoid, F.gelu),
    "connection": (lambda x: F.conv2d(x, torch.ones(1)), lambda x: F.linear(x, torch.ones(1))),
    "norm": (lambda x: F.batch_norm(x, torch.ones(3), torch.ones(3)),),
    "add": (lambda x: x + x, lambda x: torch.add(x, x), lambda x: x.add(x), lambda x: 1 + x),
    "dropout": (lambda x: F.dropout(x, 0.5),),
    "reshape": (lambda x: x.view(1, -1), lambda x: torch.flatten(x, 1), lambda x: x.flatten(1)),
    "mean": (lambda x: x.mean(0), lambda x: torch.mean(x, 0)),
    "concatenate": (lambda x: torch.cat([x, x]),),
    "other": (torch.erf,),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "number"), [(kind, n) for kind, made in FUNCTIONS.items() for n in range(len(made))]
)
def test_functions_are_known_by_what_they_do(kind: str, number: int) -> None:
    class Calls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return FUNCTIONS[kind][number](x)

    kinds = [node.kind for node in sf.graph(Calls()).nodes]
    assert kinds[-2:] == [kind, "output"]
    assert kinds.count("input") == 1


class Loops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.conv(x[t]) for t in range(x.shape[0])])


class Decides(Loops):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else x


class Makes(Loops):
    def forward(self, x: Tensor) -> Tensor:
        return nn.Conv2d(3, 3, 1)(x)


class Wants(Loops):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
        return self.conv(x + y)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Loops, "cannot be followed: .*integer"),
        (Decides, "cannot be followed: .*control flow"),
        (Makes, "calls a Conv2d that is not among its modules"),
        (Wants, "cannot be followed: .*missing 1 required positional argument: 'y'"),
    ],
)
def test_what_cannot_be_followed_is_named(kind: type[nn.Module], reason: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ModuleDict({"deep": kind()})["deep"])
    with pytest.raises(GraphError, match=f"module '1'.*{reason}") as caught:
        sf.graph(model)
    assert caught.value.path == "1"
    assert "\n" not in str(caught.value)
    with pytest.raises(GraphError, match=re.escape(f"the network itself ({kind.__name__})")):
        sf.graph(kind())


def trained(model: nn.Module) -> nn.Module:
    for x in torch.randn(3, 2, 4, 3, 8, 8):
        model.train()(x)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


def test_attributes_are_fused_and_the_class_stays() -> None:
    model = trained(Mine())
    fused = sf.fuse_conv_bn(model)
    assert type(fused) is Mine
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    x = torch.randn(2, 4, 3, 8, 8, dtype=torch.float64)
    expected = copy.deepcopy(model).double()(x)
    torch.testing.assert_close(copy.deepcopy(fused).double()(x), expected, rtol=1e-5, atol=1e-6)


class Shares(nn.Module):
    """Where a batch norm must stay: each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.twice, self.once = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.both, self.after, self.apart = nn.Conv2d(3, 3, 1), *map(nn.BatchNorm2d, (3, 3))
        self.before, self.common = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.fused, self.with_it = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.alias = self.fused  # the same by another name

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x[0])
        y = self.bn(y) + y  # the sum wants it as it is
        y = self.once(self.twice(y)) + self.twice(y)  # and so does this one, of another call
        y = self.after(self.both(y)) + self.apart(self.both(y))  # two norms: neither is its own
        y = self.common(self.before(y)) + self.common(y)  # it also normalizes something else
        return self.with_it(self.fused(y)) + self.with_it(self.alias(-y))


def test_only_what_a_batch_norm_alone_takes_is_fused() -> None:
    model = trained(Shares())
    fused = sf.fuse_conv_bn(model)
    left = [name for name, part in fused.named_modules() if isinstance(part, nn.BatchNorm2d)]
    assert left == ["bn", "once", "after", "apart", "common"]
    assert fused.fused is fused.alias
    x = torch.randn(1, 4, 3, 8, 8, dtype=torch.float64)
    expected = copy.deepcopy(model).double()(x)
    torch.testing.assert_close(copy.deepcopy(fused).double()(x), expected, rtol=1e-5, atol=1e-6)


def test_parts_are_followed_where_the_whole_cannot_be() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.body(x[t]) for t in range(x.shape[0])])

    model = trained(nn.Sequential(Around(), nn.Identity()))
    fused = sf.fuse_conv_bn(model)
    x = torch.randn(2, 4, 3, 8, 8)
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)
    model[0].bn = nn.BatchNorm2d(3)
    with pytest.raises(FoldError, match=r"module '0' \(Around\).*its batch norm 'bn' follows"):
        sf.fuse_conv_bn(model)
