"""`check`: rounding at a threshold passes, anything else does not, and nothing proves nothing."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spikefold as sf
from spikefold.errors import ExportError
from spikefold.export import RUNTIMES, Layout, openvino_with, walk
from spikefold.export._bound import flips
from spikefold.nn import observing
from tests.export.running import Outputs, eager, onnx, trained

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def network(**options: Any) -> nn.Module:
    made = sf.models.small(in_channels=1, steps=3, image_size=8, width=0.3, **options)
    return sf.fold(trained(made, torch.rand(8, 1, 8, 8)))


def written(network: nn.Module, folder: Path, **options: Any) -> Path:
    path = folder / "network.onnx"
    sf.to_onnx(network, path, **options)
    return path


def potentials(network: nn.Module, x: Tensor, name: str) -> Tensor:
    """U of every step, with the reset that the neurons have."""
    found: list[Tensor] = []

    def see(seen: str, call: Any) -> None:
        if seen == name:
            current, _ = sf.dynamics.compute(call.currents)
            v = torch.zeros_like(current[0])
            for t, now in enumerate(current):
                found.append(v * call.neuron.constants.decay + now)
                v = sf.dynamics.reset(found[-1], call.fired.spikes[t], call.neuron.constants)

    with torch.no_grad(), observing(network, see):
        network(x)
    return torch.stack(found)


@pytest.mark.parametrize("layout", ["merged", "scan", "step"])
def test_every_decision_is_compared_in_every_layout(layout: Layout, tmp_path: Path) -> None:
    folded = network(norm="mpbn-steps")
    path = written(folded, tmp_path, layout=layout)
    record = sf.check(folded, path, [IMAGES[:4], (IMAGES[4:], torch.zeros(2))])
    # channels 10, 10, 19, 19 of 8x8, 8x8, 4x4, 2x2 places; three steps of six samples
    assert record.file.decisions == (10 * 64 + 10 * 64 + 19 * 16 + 19 * 4) * 3 * 6
    assert record.control.decisions == record.file.decisions
    assert record.samples == 6
    assert record.passed
    assert "passed: " in str(record)


def on_a_tie() -> nn.Module:
    """A network whose thresholds in the second layer are first potentials when it is fused."""
    folded = network(norm="mpbn")
    u = potentials(sf.fuse_conv_bn(folded), IMAGES, "features.1.lif")
    folded.features[1].lif.theta.copy_(u[0, 2, :, 3, 3])
    return folded


def test_ties_that_fall_otherwise_pass(tmp_path: Path) -> None:
    folded = on_a_tie()
    record = sf.check(folded, written(folded, tmp_path, fuse=True), [IMAGES])
    assert record.file.first > 0
    assert set(record.layers) == {"features.1.lif"}
    assert record.file.samples > 0
    assert 0 < record.file.largest <= 1
    assert record.passed


def test_a_threshold_that_moved_is_caught(tmp_path: Path) -> None:
    folded = network(norm="mpbn")
    moved = network(norm="mpbn")
    moved.load_state_dict(folded.state_dict())
    moved.features[1].lif.theta += 1e-3
    record = sf.check(folded, written(moved, tmp_path), [IMAGES])
    assert not record.passed
    assert record.file.beyond > 0
    assert set(record.layers) == {"features.1.lif"}
    assert record.control.passed
    assert "FAILED" in str(record)


def test_bfloat16_is_caught(tmp_path: Path) -> None:
    """Weights rounded to bfloat16, as a runtime that computes in it would."""

    def rounded(model: bytes) -> Callable[[Outputs], Outputs]:
        parsed = onnx.load_from_string(model)
        for constant in parsed.graph.initializer:
            if constant.data_type == onnx.TensorProto.FLOAT and len(constant.dims) == 4:
                array = torch.from_numpy(onnx.numpy_helper.to_array(constant).copy())
                constant.raw_data = array.bfloat16().float().numpy().tobytes()
        return RUNTIMES["onnxruntime"](parsed.SerializeToString())

    folded = network(norm="mpbn")
    record = sf.check(folded, written(folded, tmp_path), [IMAGES], runtime=rounded)
    assert record.file.beyond > 0
    assert not record.passed


def test_openvino_in_float32_passes_and_in_bfloat16_does_not(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    folded = network(norm="mpbn")
    path = written(folded, tmp_path)
    assert sf.check(folded, path, [IMAGES], runtime="openvino").passed
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bfloat16")
    record = sf.check(folded, path, [IMAGES], runtime=openvino_with())
    assert not record.passed


def test_the_reference_of_onnx(tmp_path: Path) -> None:
    folded = network(norm="mpbn")
    path = written(folded, tmp_path)
    assert sf.check(folded, path, [IMAGES[:2]], runtime="reference").passed


def changed(change: Callable[[Outputs], None]) -> Callable[[bytes], Callable[[Outputs], Outputs]]:
    """Onnxruntime, whose results something happens to."""

    def runtime(model: bytes) -> Callable[[Outputs], Outputs]:
        call = RUNTIMES["onnxruntime"](model)

        def run(feed: Outputs) -> Outputs:
            results = call(feed)
            change(results)
            return results

        return run

    return runtime


def test_classes_that_differ_without_a_flip_are_caught(tmp_path: Path) -> None:
    folded = network(norm="mpbn")
    path = written(folded, tmp_path)

    def other_class(results: Outputs) -> None:
        results["logits"] = results["logits"][:, ::-1]

    record = sf.check(folded, path, [IMAGES], runtime=changed(other_class))
    assert record.file.differ == 0
    assert record.file.unexplained == record.file.classes > 0
    assert not record.passed


def test_outputs_that_are_not_finite_are_caught(tmp_path: Path) -> None:
    folded = network(norm="mpbn")
    path = written(folded, tmp_path)
    record = sf.check(
        folded, path, [IMAGES],
        runtime=changed(lambda results: results["logits"].fill(np.nan)),
    )  # fmt: skip
    assert record.file.not_finite == 60
    assert not record.passed


class Two(nn.Module):
    """Two layers; the second takes a shortcut as well."""

    def __init__(self, reset: Any) -> None:
        super().__init__()
        options: Any = {"reset": reset, "decay": 0.5}
        self.one = sf.SpikingLayer(nn.Linear(3, 4), nn.Identity(), sf.LIF(**options))
        self.two = sf.SpikingLayer(nn.Linear(4, 4), nn.BatchNorm1d(4), sf.LIF(**options))

    def forward(self, x: Tensor) -> Tensor:
        one = self.one(x)
        return self.two(one, one).mean(0)


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("which", ["one", "two"])
def test_a_flip_is_first_where_equal_potentials_decide_otherwise(
    reset: str, which: str, tmp_path: Path
) -> None:
    """The other program is the same but for its thresholds, so this is what first means."""
    ours, other, x = Two(reset).eval(), Two(reset).eval(), torch.randn(9, 50, 3)
    nn.init.constant_(ours.two.norm.bias, 0.5)
    nn.init.zeros_(ours.two.connection.weight[0])  # a neuron that only the shortcut reaches
    other.load_state_dict(ours.state_dict())
    lif = getattr(other, which).lif
    # the threshold of the decision, and not what a soft reset subtracts
    theta = torch.full((1, 4), 0.7)
    folded = sf.FoldedLIF(sf.dynamics.Condition(None, theta), lif.constants)
    getattr(other, which).lif = folded
    first = {"one.lif": 0, "two.lif": 0}
    differ = 0
    spikes, others = eager(ours, x), eager(other, x)
    for name in first:
        same = potentials(ours, x, name) == potentials(other, x, name)
        flipped = torch.from_numpy(spikes[name] != others[name])
        first[name] = int((same & flipped).sum())
        differ += int(flipped.sum())
    record = sf.check(ours, written(other, tmp_path, example=x), [x])
    assert first[f"{which}.lif"] > 20
    assert record.layers == {name: count for name, count in first.items() if count}
    assert record.file.differ == differ
    assert record.file.cascades == differ - sum(first.values()) > 20


def test_the_bound_by_hand() -> None:
    """S = sum |w x| + |b| + |shortcut| + |decay v|; k counts inputs that are not zero."""

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            lif = sf.LIF(threshold=9.0, decay=0.5, reset="hard")
            self.layer = sf.SpikingLayer(nn.Linear(3, 1), nn.Identity(), lif)
            self.shortcut = sf.OverTime(nn.Linear(3, 1, bias=False))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x, self.shortcut(x))

    network = Joined()
    weight, bias = torch.tensor([[2.0, -3.0, 4.0]]), torch.tensor([-5.0])
    network.layer.connection.load_state_dict({"weight": weight, "bias": bias})
    network.shortcut[0].load_state_dict({"weight": torch.tensor([[0.0, -1.0, 0.0]])})
    x = torch.tensor([[[1.0, -1.0, 0.0]], [[0.0, 0.0, 1.0]]])
    quiet = {"layer_lif": torch.zeros(2, 1, 1, dtype=torch.bool)}
    bound = flips(walk(network, x), x, quiet, quiet)["layer_lif"].bound.flatten() / 2.0**-23
    # S: 2 + 3 + 5 + 1 = 11, then 4 + 5 + 0 + 0.5 * 11 = 14.5
    # k: two terms, bias, shortcut; then what is kept has 4 roundings, and 2 more for decay v + x
    assert bound.tolist() == [4 * 11.0, 6 * 14.5]


def test_sums_divided_by_a_negative_number_have_the_bound_of_their_size() -> None:
    layer = sf.SpikingLayer(nn.Conv2d(1, 1, 1, bias=False), nn.Identity(), sf.LIF(threshold=9.0))
    layer.connection.weight.data.fill_(3.0)
    network = nn.Sequential(sf.OverTime(nn.AvgPool2d(2, divisor_override=-2)), layer)
    quiet = {"1_lif": torch.zeros(1, 1, 1, 1, 1, dtype=torch.bool)}
    x = torch.ones(1, 1, 1, 2, 2)
    (found,) = flips(walk(network, x), x, quiet, quiet).values()
    # S = 3 * 4 / 2; k: four terms and the division, one term and its product
    assert found.bound.item() / 2.0**-23 == (5 + 2) * 6.0


def test_no_order_of_summation_leaves_the_bound() -> None:
    """Channels in other orders: sums of the same terms in float32, in six steps that never fire."""
    layer = sf.SpikingLayer(
        nn.Conv2d(24, 8, 3, padding=1), nn.BatchNorm2d(8), sf.LIF(threshold=1e30, decay=0.9)
    )
    layer, x = trained(layer, torch.randn(3, 2, 24, 6, 6)), torch.randn(6, 3, 24, 6, 6)
    ours = potentials(layer, x, "lif")
    quiet = {"lif": torch.zeros(6, 3, 8, 6, 6, dtype=torch.bool)}
    bound = flips(walk(layer, x), x, quiet, quiet)["lif"].bound
    largest = 0.0
    for _ in range(20):
        order = torch.randperm(24)
        other = sf.SpikingLayer(nn.Conv2d(24, 8, 3, padding=1), nn.BatchNorm2d(8), layer.lif)
        other.load_state_dict(layer.state_dict())
        other.connection.weight.data = layer.connection.weight.data[:, order]
        theirs = potentials(other.eval(), x[:, :, order], "lif")
        largest = max(largest, ((theirs.double() - ours).abs() / bound).max().item())
    assert 0.005 < largest <= 1
    assert bound.max() < 1e-3  # far from what bfloat16 does


def test_the_control_of_linear_layers_sums_otherwise(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = sf.SpikingLayer(nn.Linear(64, 64), nn.BatchNorm1d(64), sf.LIF(sf.MPBN(64)))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).mean(0)

    net, x = sf.fold(Net().eval()), torch.randn(2, 1, 64)
    with torch.no_grad():  # at the threshold, where rounding decides
        net.layer.lif.theta.copy_(net.layer.norm(net.layer.connection(x[0]))[0])
    sf.to_onnx(net, tmp_path / "network.onnx", example=x)
    record = sf.check(net, tmp_path / "network.onnx", [x])
    assert record.passed
    assert 0 < record.control.first <= record.control.decisions == 2 * 64


def test_nothing_proves_nothing(tmp_path: Path) -> None:
    folded = network(norm="mpbn")
    path = written(folded, tmp_path)
    with pytest.raises(ExportError, match="no sample: there is nothing to compare"):
        sf.check(folded, path, [])
    pool = sf.OverTime(nn.AvgPool2d(2)).eval()
    path, x = written(pool, tmp_path, example=torch.rand(2, 3, 1, 8, 8)), torch.rand(2, 3, 1, 8, 8)
    with pytest.raises(ExportError, match="has no neurons, so nothing would be proved"):
        sf.check(pool, path, [x])


def foreign(path: Path) -> None:
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)


def renamed(path: Path) -> None:
    model = onnx.load(path)
    entry = model.metadata_props[0]
    entry.value = entry.value.replace("/features_1_lif", "/elsewhere")
    onnx.save(model, path)


def garbled(path: Path) -> None:
    model = onnx.load(path)
    model.metadata_props[0].value = '{"layout": "merged", "steps": "many"}'
    onnx.save(model, path)


NOT_OURS = "no ONNX file, torch program or NIR file, or damaged"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (lambda path: path.unlink(), "cannot be read: No such file"),
    "text": (lambda path: path.write_text("no onnx"), NOT_OURS),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:3000]), NOT_OURS),
    "empty": (lambda path: path.write_bytes(b""), NOT_OURS),
    "foreign": (foreign, "not exported by spikefold"),
    "renamed": (renamed, "the spikes of 'features.1.lif' are not in it: it was changed"),
    "garbled": (garbled, "its description by spikefold is damaged"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_files_that_are_not_what_they_should_be(name: str, tmp_path: Path) -> None:
    folded, (spoil, why) = network(norm="mpbn"), BROKEN[name]
    path = written(folded, tmp_path)
    spoil(path)
    with pytest.raises(ExportError) as error:
        sf.check(folded, path, [IMAGES])
    assert str(error.value).startswith(str(path))
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_together(
    tmp_path: Path, as_user: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded = network(norm="mpbn")
    path = written(folded, tmp_path)
    with pytest.raises(ExportError, match=r"takes images \[N, 1, 8, 8\], got \[6, 1, 9, 9\]"):
        sf.check(folded, path, [torch.rand(6, 1, 9, 9)])
    with pytest.raises(ExportError, match=r"takes images \[N, 1, 8, 8\], got \[3, 6, 1, 8, 8\]"):
        sf.check(folded, path, [torch.rand(3, 6, 1, 8, 8)])
    with pytest.raises(ExportError, match="unknown runtime 'onnxrunner': did you mean 'onnxrunti"):
        sf.check(folded, path, [IMAGES], runtime="onnxrunner")
    other = sf.fold(sf.models.resnet20(in_channels=1, steps=3, image_size=8, width=0.05).eval())
    with pytest.raises(ExportError, match=r"exported from another network: 'features.3.lif' is n"):
        sf.check(other, written(folded, tmp_path), [IMAGES])
    raw = sf.models.small(in_channels=1, steps=3, image_size=8, width=0.3)
    with pytest.raises(ExportError, match=r"'features.0.lif' .* not folded"):
        sf.check(raw, path, [IMAGES])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match=r"pip install 'spikefold\[onnxruntime\]'"):
        sf.check(folded, path, [IMAGES])
