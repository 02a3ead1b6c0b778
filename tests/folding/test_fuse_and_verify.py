"""Conv-BN fusion against float64, and verification against networks that are known to differ."""

import pytest
import torch
from torch import nn

import spikefold as sf
from spikefold.errors import FoldError
from spikefold.folding import fuse


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_fused_layer_computes_the_same(kind: str, affine: bool, bias: bool) -> None:
    connection: nn.Conv2d | nn.Linear
    if kind == "conv":
        connection, norm, x = (
            nn.Conv2d(3, 5, 3, bias=bias),
            nn.BatchNorm2d(5, affine=affine),
            torch.randn(4, 3, 6, 6),
        )
    else:
        connection, norm, x = (
            nn.Linear(3, 5, bias=bias),
            nn.BatchNorm1d(5, affine=affine),
            torch.randn(4, 3),
        )
    for _ in range(3):
        norm(connection(x))
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    expected = norm.eval().double()(connection.double()(x.double()))
    fused = fuse(connection, norm).float()
    torch.testing.assert_close(fused(x), expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sf.models.MODELS)
def test_fused_networks_hold_no_batch_norm_and_report_what_moved(name: str) -> None:
    model = sf.models.MODELS[name](num_classes=10, width=0.125, image_size=32)
    for x in torch.randn(3, 3, 4, 3, 32, 32):
        model(x)
    folded = sf.fold(model)
    fused = sf.fuse_conv_bn(folded)
    assert any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    record = sf.verify(folded, fused, [(torch.randn(3, 8, 3, 32, 32), torch.arange(8))])
    assert record.mismatch_rate < 1e-3
    assert record.accuracy is not None
    assert fused.transforms == ("fold", "fuse_conv_bn")


def test_what_is_fused_keeps_its_mode() -> None:
    norm = sf.TdBN(5)
    norm(torch.randn(2, 4, 5, 6, 6))
    fuse(nn.Conv2d(3, 5, 3), norm)
    assert norm.training


def test_bad_fusions_are_refused() -> None:
    with pytest.raises(FoldError, match="nothing to fuse"):
        sf.fuse_conv_bn(sf.fuse_conv_bn(sf.models.small()))
    model = sf.models.small()
    model.features[1].norm.running_var[0] = torch.nan  # type: ignore[union-attr, index]
    with pytest.raises(FoldError, match=r"layer 'features.1'.*NaN"):
        sf.fuse_conv_bn(model)
    with pytest.raises(FoldError, match="no running statistics"):
        fuse(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))


def test_verify_counts_by_hand() -> None:
    # one neuron fires above 0.5, the other network's above 1: they differ at 0.7 only
    one, other = sf.LIF(decay=0.0), sf.LIF(decay=0.0, threshold=1.0)
    x = torch.tensor([[[0.1, 0.7, 1.2]], [[0.7, 0.7, 0.1]]])
    record = sf.verify(one, other, [x], per_step=True)
    assert (record.spikes, record.mismatches, record.samples) == (6, 3, 1)
    assert record.layers[""].fired == 4
    assert record.layers[""].firing_rate == pytest.approx(4 / 6)
    assert record.max_output_difference == 1.0
    assert record.accuracy is None
    assert str(record) == "3 of 6 decisions differ in 1 samples, outputs by at most 1"


def test_verify_counts_accuracy_and_restores_the_mode() -> None:
    model = sf.models.small(in_channels=1, steps=2).train()
    x = torch.rand(6, 1, 8, 8)
    with torch.no_grad():
        labels = model.eval()(x).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    model.train()
    record = sf.verify(model, sf.fold(model), [(x, labels)])
    assert record.accuracy == (5 / 6, 5 / 6)
    assert model.training
    assert model.features[1].training


def test_verify_refuses_what_it_cannot_compare() -> None:
    small = sf.models.small(in_channels=1, steps=2)
    with pytest.raises(FoldError, match="no batch"):
        sf.verify(small, small, [])
    with pytest.raises(FoldError, match="differ in their layers"):
        sf.verify(
            small, sf.models.resnet20(in_channels=1, steps=2, width=0.1), [torch.rand(1, 1, 8, 8)]
        )
    with pytest.raises(FoldError, match=r"layer 'features.0.lif': spikes"):
        sf.verify(
            small, sf.models.small(in_channels=1, steps=2, width=0.5), [torch.rand(1, 1, 8, 8)]
        )
