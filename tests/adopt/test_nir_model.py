"""NIR graphs as models that files keep: against the equations in float64, and the network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import spikefold as sf
from spikefold.adopt import nir_model
from spikefold.cli import main
from spikefold.errors import AdoptError, FileFormatError, SpikefoldWarning
from spikefold.saving._file import checksum, read_file
from tests.adopt.nir_equations import simulate
from tests.adopt.test_nir import dyadic, graph_of_all_kinds, nir, row, without_inner
from tests.export.running import trained
from tests.saving.test_hostile import header, rewritten


def written(folder: Path, target: Any = None, **options: Any) -> tuple[Any, Path]:
    """A folded network, and its graph in a file."""
    torch.manual_seed(0)
    made = sf.models.small(in_channels=1, steps=3, image_size=8, width=0.1, num_classes=4)
    folded = sf.fold(trained(made, torch.rand(8, 1, 8, 8)))
    sf.to_nir(folded, folder / "network.nir", target=target, **options)
    return folded, folder / "network.nir"


@torch.no_grad()
@pytest.mark.parametrize("target", [None, "spikingjelly", "norse"])
def test_what_was_exported_comes_back(target: Any, tmp_path: Path) -> None:
    folded, path = written(tmp_path, target)
    model, x = nir_model(path), torch.rand(16, 1, 8, 8)
    torch.testing.assert_close(model(x), folded(x), atol=1e-6, rtol=0)
    assert model(x).std(0).min() > 0
    arguments = model.arguments
    assert (arguments.num_classes, arguments.in_channels, arguments.image_size) == (4, 1, 8)
    assert arguments.steps == 3
    assert not model.training


@torch.no_grad()
def test_every_kind_of_node_is_kept_in_a_file(tmp_path: Path) -> None:
    """Decays a channel, thresholds of each neuron, groups, branches; against NIR's equations."""
    torch.manual_seed(1)
    decay = torch.tensor([0.25, 0.5, 0.75, 0.5])[:, None, None].numpy()
    threshold = dyadic(4, 8, 8).numpy()
    graph = without_inner(graph_of_all_kinds(decay, threshold, None))
    model = nir_model(graph, steps=5)
    sf.save(model, tmp_path / "network.safetensors")
    again = sf.load(tmp_path / "network.safetensors")
    kinds = {type(module).__name__ for module in again.modules()}
    assert kinds >= {"Conv2d", "Scale", "FoldedLIF", "LIF", "AvgPool2d", "Flatten", "Linear"}
    frames = dyadic(5, 3, 4, 8, 8)
    expected = simulate(graph, frames)["output"].mean(0)
    assert expected.std() > 0
    for one in (model, again):
        torch.testing.assert_close(one(frames).double(), expected, atol=1e-6, rtol=0)
    image = frames[0]
    assert torch.equal(again(image), model(image.expand(5, *image.shape)))


@torch.no_grad()
def test_a_stream_is_followed(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    model, x, state, seen = nir_model(path), torch.rand(2, 1, 8, 8), None, []
    for _ in range(3):
        y, state = model.step(x, state)
        seen.append(y)
    torch.testing.assert_close(torch.stack(seen).mean(0), model(x))


def test_it_says_how_its_input_is_read(tmp_path: Path) -> None:
    made = sf.models.small(in_channels=2, steps=3, image_size=8, width=0.1)
    folded = sf.fold(trained(made, torch.rand(3, 4, 2, 8, 8)))
    folded.input_spec = sf.data.InputSpec(2, sf.data.Framing(3, 8, by="time"), tuple("0123456789"))
    sf.to_nir(folded, tmp_path / "events.nir")
    sf.save(nir_model(tmp_path / "events.nir"), tmp_path / "a.safetensors")
    assert sf.load(tmp_path / "a.safetensors").input_spec == folded.input_spec
    other = nir_model(tmp_path / "events.nir", steps=7)
    assert other.input_spec is not None
    assert other.input_spec.framing.steps == other.arguments.steps == 7


def test_a_damaged_description_is_told(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    graph = nir.read(path)
    graph.metadata["spikefold"]["description"] = "{"
    with pytest.warns(SpikefoldWarning, match="says of its input is damaged"):
        network = sf.from_nir(graph)
    assert network.input_spec is None


def named(plain: Any, name: str) -> Any:
    return plain["parts"]["parts"][name]


def renamed(plain: Any) -> None:
    (_, part), *others = plain["parts"]["parts"].items()
    plain["parts"]["parts"] = {"x); import os  #": part, **dict(others)}


HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a name that is code": (renamed, "is no name of a part"),
    "an unknown kind": (
        lambda p: named(p, "features_0_connection").update(kind="Bilinear"),
        "unknown kind",
    ),
    "no such source": (
        lambda p: named(p, "features_0_lif").update(sources=["a"]),
        "there is no part 'a' before it is taken",
    ),
    "no source": (
        lambda p: named(p, "features_0_connection").update(sources=[]),
        "a part takes nothing",
    ),
    "a setting that is none": (
        lambda p: named(p, "features_0_connection")["settings"].update(a=1),
        "part 'features_0_connection': ",
    ),
    "a stride of 0": (
        lambda p: named(p, "features_0_connection")["settings"].update(stride=[0, 0]),
        "do not fit",
    ),
    "other classes": (lambda p: p["arguments"].update(num_classes=9), "not 9 classes"),
    "another decay": (
        lambda p: named(p, "features_0_lif")["settings"]["constants"].update(decay="a"),
        "features_0_lif",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_headers_that_lie(name: str, tmp_path: Path, as_user: None) -> None:
    _, path = written(tmp_path)
    file = tmp_path / "network.safetensors"
    sf.save(nir_model(path), file)
    change, told = HOSTILE[name]
    plain = header(file)
    change(plain)
    _, stored = read_file(file)
    rewritten(file, json.dumps(plain | {"checksum": checksum(plain, stored)}))
    with pytest.raises(FileFormatError, match=told) as caught:
        sf.load(file)
    assert "\n" not in str(caught.value)


def test_what_is_no_model(tmp_path: Path, as_user: None) -> None:
    flat = row(nir.Affine(dyadic(6, 4).numpy(), dyadic(6).numpy()), shape=(4,))
    with pytest.raises(AdoptError, match=r"its input is \[4\]: a model takes square images"):
        nir_model(flat, steps=3)
    graph = graph_of_all_kinds(0.5, 0.5, None)
    with pytest.raises(AdoptError, match="does not say in how many time steps: give --steps"):
        nir_model(graph)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, path = written(tmp_path)
    out = tmp_path / "network.safetensors"
    assert main(["import", str(path), "-o", str(out)]) == 0
    told = capsys.readouterr().out
    assert told.count("\n") == 1
    assert "5 Conv2d, 4 FoldedLIF, 2 AvgPool2d; 1 channels, 8x8, in 3 steps to 4 classes" in told
    again = tmp_path / "again.safetensors"
    words = ["import", str(path), "--from", "nir", "-o", str(again), "--steps", "2", "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "nir"
    assert record["steps"] == sf.load(again).arguments.steps == 2


WRONG: dict[str, tuple[list[str], int, str]] = {
    "absent": (["absent.nir", "--from", "nir"], 1, "absent.nir: no such file"),
    "none": (["text.nir", "--from", "nir"], 1, "not a NIR file, or damaged"),
    "there": (["network.nir", "-o", "there.safetensors"], 1, "--overwrite"),
    "a model": (["network.nir", "--from", "nir", "--model", "resnet20"], 2, "leave out --model"),
    "no model": (["network.nir", "--from", "official"], 2, "--model says which architecture"),
    "a source": (["a.pth", "--model", "resnet20", "--source", "norse"], 2, "is for --from nir"),
    "steps": (
        ["network.nir", "--from", "nir", "--steps", "0"],
        2,
        "import: steps must lie in [1, 10000], got 0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told_in_one_line(
    name: str, tmp_path: Path, as_user: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    written(tmp_path)
    Path("text.nir").write_text("NIR")
    Path("there.safetensors").write_text("")
    words, status, told = WRONG[name]
    output = [] if "-o" in words else ["-o", "new.safetensors"]
    assert main(["import", *words, *output]) == status
    captured = capsys.readouterr()
    assert told in " ".join(captured.err.split())
    assert status == 2 or captured.err.count("\n") == 1
    assert not Path("new.safetensors").exists()
