"""Networks as torch users have them become spiking: which neurons, with what, and what stays."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import spikefold as sf
from spikefold.errors import ConfigError, GraphError, ShapeError


class Plain(nn.Module):
    """Layers as attributes, functions for the rest, one ReLU module for two calls."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(0.1)
        self.fc1, self.fc2 = nn.Linear(8 * 4 * 4, 12), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.relu(self.conv1(x)), 2)
        x = F.avg_pool2d(self.relu(self.bn(self.conv2(x))), 2)
        x = self.dropout(x.view(x.size(0), -1))
        return self.fc2(F.relu(self.fc1(x)))


class BasicBlock(nn.Module):
    """With the module structure of torchvision's."""

    expansion = 1

    def __init__(self, inputs: int, channels: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """With the module structure of torchvision's."""

    expansion = 4

    def __init__(self, inputs: int, channels: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels * 4, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels * 4)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class ResNet(nn.Module):
    """With the module structure of torchvision's."""

    def __init__(self, block: type[BasicBlock | Bottleneck], width: int = 4) -> None:
        super().__init__()
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = self._make_layer(block, width, 2, 1)
        self.layer2 = self._make_layer(block, 2 * width, 2, 2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(2 * width * block.expansion, 10)

    def _make_layer(
        self, block: type[BasicBlock | Bottleneck], planes: int, blocks: int, stride: int
    ) -> nn.Sequential:
        downsample = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            downsample = nn.Sequential(
                nn.Conv2d(self.inplanes, planes * block.expansion, 1, stride, bias=False),
                nn.BatchNorm2d(planes * block.expansion),
            )
        layers = [block(self.inplanes, planes, stride, downsample)]
        self.inplanes = planes * block.expansion
        layers += [block(self.inplanes, planes, 1, None) for _ in range(1, blocks)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class InvertedResidual(nn.Module):
    """With the module structure of torchvision's MobileNetV2: a linear bottleneck."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expand: int = 3) -> None:
        super().__init__()
        hidden = inputs * expand
        self.use_res_connect = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Sequential(
                nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(True)
            ),
            nn.Sequential(
                nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
                nn.BatchNorm2d(hidden),
                nn.ReLU6(True),
            ),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.use_res_connect else self.conv(x)


def mobile() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU6(), InvertedResidual(6, 6),
        InvertedResidual(6, 8, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


class PreActivation(nn.Module):
    """Batch norm and ReLU before the convolution, channels put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.scale = nn.Parameter(torch.ones(1, 6, 1, 1))
        self.fc = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        y = self.conv2(F.relu(self.bn(x))) * self.scale
        z = torch.cat([x, y], 1)
        return self.fc(F.relu(z).mean(dim=(2, 3)))


class Arithmetic(nn.Module):
    """Sums that are no shortcut of a unit: in place, with a factor, with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.bias = nn.Parameter(torch.randn(1, 6, 1, 1))
        self.dropout = nn.Dropout(0.5, inplace=True)
        self.fc = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(F.relu(self.conv1(x) + self.bias))
        y = F.relu(torch.add(self.conv2(x), x, alpha=2)).mul_(x)
        y += x
        y = F.dropout(F.relu(y), 0.5, self.training, inplace=True)
        return self.fc(y.mean((2, 3)))


NETWORKS = {
    "plain": (Plain, 3),
    "basic": (lambda: ResNet(BasicBlock), 9),
    "bottleneck": (lambda: ResNet(Bottleneck), 13),
    "mobile": (mobile, 5),
    "pre-activation": (PreActivation, 2),
    "arithmetic": (Arithmetic, 3),
}
X = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def trained(network: nn.Module, steps: int = 3) -> nn.Module:
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(network(X), torch.arange(6)).backward()
        optimizer.step()
    assert all(parameter.grad is not None for parameter in network.parameters())
    return network.eval()


@pytest.mark.parametrize("norm", ["mpbn", "mpbn-element", "mpbn-steps", "none"])
@pytest.mark.parametrize("name", NETWORKS)
def test_made_trained_folded_fused_and_not_one_spike_differs(name: str, norm: str) -> None:
    make, relus = NETWORKS[name]
    cnn = make()
    before = copy.deepcopy(cnn.state_dict())
    network = sf.convert(cnn, steps=2, norm=norm, example=X)
    assert all(torch.equal(value, before[key]) for key, value in cnn.state_dict().items())
    layers = [module for module in network.modules() if isinstance(module, sf.SpikingLayer)]
    assert len(layers) == relus  # neurons of its own for each call
    trained(network)
    if norm != "none":
        folded = sf.fold(network)
        record = sf.verify(network, folded, [(X, torch.arange(6))])
        assert record.mismatches == 0
        assert len(record.layers) == relus
        assert record.spikes > 0
        network = folded
    if name not in ("pre-activation", "arithmetic"):  # no batch norm after a convolution there
        fused = sf.fuse_conv_bn(network)
        assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
        assert sf.verify(network, fused, [X]).mismatch_rate < 1e-2


@pytest.mark.parametrize("name", NETWORKS)
def test_with_a_relu_in_the_place_of_the_neurons_it_is_the_network_it_was(name: str) -> None:
    """What stands around the neurons computes what it did, with the weights that were asked for."""

    class Relu(sf.LIF):
        def integrate(self, currents, state):  # type: ignore[no-untyped-def]
            x, observed = sf.dynamics.compute(currents)
            return sf.dynamics.Fired(limits[name](x), x[-1], observed, None)

    limits = {"mobile": F.relu6}
    limits = {key: limits.get(key, F.relu) for key in NETWORKS}
    cnn = NETWORKS[name][0]()
    for module in cnn.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.running_mean)
    cnn = cnn.eval().double()
    network = sf.convert(cnn, steps=3, norm="none", weights=True, example=X.double()).eval()
    for module in network.modules():
        if isinstance(module, sf.SpikingLayer):
            module.lif = Relu()
    torch.testing.assert_close(network(X.double()), cnn(X.double()))


def test_what_was_done_in_place_spoils_no_gradient() -> None:
    network = sf.convert(Arithmetic(), steps=2, example=X)
    with sf.backend("reference"):  # its backward pass needs the spikes
        trained(network)


def test_names_and_parts_by_hand() -> None:
    network = sf.convert(ResNet(BasicBlock), steps=2)
    body = network.body
    unit = body.get_submodule("layer2.0.conv2")
    assert isinstance(unit, sf.SpikingLayer)
    assert isinstance(unit.connection, nn.Conv2d)
    assert isinstance(unit.norm, nn.BatchNorm2d)
    assert unit.lif.norm.shape == (8,)
    graph = sf.graph(network)
    add = next(n for n in graph.nodes if n.kind == "add" and n.scope == "body.layer2.0.conv2")
    assert [graph[name].kind for name in add.inputs] == ["norm", "reshape"]
    assert "body.layer2.0.downsample.1.weight" in network.state_dict()
    assert not any("bn1" in key for key in network.state_dict())


def test_a_still_image_is_convolved_once() -> None:
    network = sf.convert(ResNet(BasicBlock), steps=4)
    seen = []
    hook = lambda module, args: seen.append(len(args[0]))  # noqa: E731
    network.body.get_submodule("conv1").connection.register_forward_pre_hook(hook)
    assert network(X).shape == (6, 10)
    assert seen == [6]
    assert network(torch.rand(5, 2, 3, 16, 16)).shape == (2, 10)  # frames: of each
    assert seen == [6, 10]


def test_weights_are_those_asked_for() -> None:
    cnn = ResNet(BasicBlock)
    nn.init.constant_(cnn.bn1.running_mean, 3.0)
    kept = sf.convert(cnn, steps=2, weights=True).body.get_submodule("conv1")
    assert torch.equal(kept.connection.weight, cnn.conv1.weight)
    assert torch.equal(kept.norm.running_mean, cnn.bn1.running_mean)
    anew = sf.convert(cnn, steps=2).body.get_submodule("conv1")
    assert torch.equal(anew.norm.running_mean, torch.zeros(4))
    deviation = (2 / (4 * 7 * 7)) ** 0.5  # He by fan-out, as the models
    assert anew.connection.weight.std().item() == pytest.approx(deviation, rel=0.1)


def test_neurons_are_those_asked_for() -> None:
    neuron = sf.Neuron(decay=0.5, threshold=1.0, reset="soft")
    network = sf.convert(Plain(), steps=2, neuron=neuron)
    assert {m.constants for m in network.modules() if isinstance(m, sf.LIF)} == {neuron}


def test_a_convolution_for_two_relus_is_shared_by_two_units() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.pad(F.relu(self.conv(F.relu(self.conv(x)))).mean((2, 3)), (0, 7))

    network = sf.convert(Twice(), steps=2)
    first, second = (m for m in network.modules() if isinstance(m, sf.SpikingLayer))
    assert first.connection is second.connection
    assert first.lif is not second.lif
    folded = sf.fold(trained(network))
    assert sf.verify(network, folded, [X]).mismatches == 0


def row(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), *modules)


class Outputs(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.relu(x), x


class Decides(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) if x.sum() > 0 else x


class InPlace(nn.Module):
    def __init__(self, call: str) -> None:
        super().__init__()
        self.call, self.relu = call, nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        match self.call:
            case "statement":
                F.relu_(x)
                return x
            case "module":
                return self.relu(x) + x
            case "method":
                y = F.relu(x)
                return y.add_(1) + y
        return F.relu(x, inplace=True) + x


class Functional(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(F.relu(x))


REFUSED = {
    "activation": (lambda: row(nn.ReLU(), nn.GELU()), "'2' \\(GELU\\) is not a ReLU"),
    "function": (lambda: row(Functional()), "sigmoid in '1' is not a ReLU"),
    "statement in place": (lambda: row(InPlace("statement")), "relu_ in '1' changes its input"),
    "module in place": (lambda: row(InPlace("module")), "'1.relu' \\(ReLU\\) changes its input"),
    "method in place": (lambda: row(InPlace("method")), "add_ in '1' changes its input in place"),
    "function in place": (lambda: row(InPlace("function")), "relu in '1' changes its input"),
    "no relu": (row, "calls no ReLU"),
    "neurons": (lambda: row(nn.ReLU(), sf.LIF()), "the network is already a spiking one"),
    "outputs": (lambda: row(Outputs()), "must give one tensor"),
    "unknown size": (
        lambda: row(nn.MaxPool2d(2), nn.ReLU()), "size of '2' \\(ReLU\\) .*give example=images"
    ),
}  # fmt: skip


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_named(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message):
        sf.convert(make(), steps=2)


def test_channels_are_those_of_the_input() -> None:
    cnn = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3), nn.ReLU())
    assert sf.convert(cnn, steps=2)(torch.rand(2, 3, 8, 8)).shape == (2, 8, 2, 2)
    with pytest.raises(ShapeError, match="3 input channels"):
        sf.convert(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), steps=2)(torch.rand(2, 4, 8, 8))


@pytest.mark.usefixtures("as_user")
def test_bad_arguments_are_told() -> None:
    with pytest.raises(GraphError, match="module '1' \\(Decides\\)"):
        sf.convert(row(Decides()), steps=2)
    with pytest.raises(ConfigError, match="norm must be one of mpbn, "):
        sf.convert(Plain(), steps=2, norm="batch")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps must be at least 1, got 0"):
        sf.convert(Plain(), steps=0)
    with pytest.raises(ConfigError, match="give example=images"):
        sf.convert(Plain(), steps=2, norm="mpbn-element")
    with pytest.raises(ShapeError, match="takes 3 input channels, got 1"):
        sf.convert(Plain(), steps=2)(torch.rand(2, 1, 16, 16))
