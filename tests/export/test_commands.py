"""`spikefold export` and `spikefold check`, from a trained file to a proof."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import spikefold as sf
from spikefold.cli import main
from spikefold.data import load_dataset, spec_of
from spikefold.export import RUNTIMES
from tests.export.running import onnx, trained


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained on digits for a few steps, in a file, folded."""
    torch.manual_seed(0)
    dataset = load_dataset("digits", 0.1, 0)
    network = sf.models.small(in_channels=1, steps=3, width=0.5, image_size=8)
    network.input_spec = spec_of(dataset)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for x, y in list(dataset.train.batches(64, torch.Generator().manual_seed(0)))[:15]:
        optimizer.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("digits")
    sf.save(network.eval(), folder / "trained.safetensors")
    sf.save(sf.fold(network), folder / "folded.safetensors")
    return folder


@pytest.mark.parametrize("options", [[], ["--fuse"], ["--layout", "scan"], ["--layout", "step"]])
def test_an_exported_network_is_proved(
    digits: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folded, out = str(digits / "folded.safetensors"), str(tmp_path / "digits.onnx")
    assert main(["export", folded, "--to", "onnx", "-o", out, "--json", *options]) == 0
    exported = json.loads(capsys.readouterr().out)
    assert exported["bytes"] == Path(out).stat().st_size
    words = ["check", out, folded, "--data", "digits", "--samples", "100", "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    # 16, 16, 32 and 32 channels of 8x8, 8x8, 4x4 and 2x2 places, three steps, 100 samples
    assert record["file"]["decisions"] == (2 * 16 * 64 + 32 * 16 + 32 * 4) * 3 * 100
    assert record["samples"] == 100
    assert record["source"] == sf.export.file_hash(digits / "folded.safetensors")
    assert record["passed"] is record["file"]["passed"] is record["control"]["passed"] is True
    assert record["file"]["beyond"] == record["file"]["unexplained"] == 0
    described = json.loads(onnx.load(out).metadata_props[0].value)
    assert described["input"]["classes"] == [str(digit) for digit in range(10)]
    assert len(described["source"]) == 64


@pytest.mark.parametrize(("end", "kind"), [("onnx", "onnx"), ("pt2", "torch"), ("nir", "nir")])
def test_the_name_says_what_is_written(
    end: str, kind: str, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(digits / "folded.safetensors"), "-o", str(tmp_path / f"net.{end}")]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["to"] == kind
    beginning = (tmp_path / f"net.{end}").read_bytes()[:4]
    assert beginning == {"torch": b"PK\3\4", "nir": b"\x89HDF"}.get(kind, beginning)


def test_the_report_and_the_exit_status(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folded, out = digits / "folded.safetensors", tmp_path / "digits.onnx"
    network = sf.load(folded)
    network.features[1].lif.theta += 0.01
    sf.to_onnx(network, out, source=digits / "trained.safetensors")
    assert main(["check", str(out), str(folded), "--data", "digits", "--samples", "20"]) == 1
    report, notes = capsys.readouterr()
    assert f"note: {out} was exported from another file than {folded}" in notes
    assert "20 test samples of digits, onnxruntime" in report
    assert "FAILED: " in report
    assert "first flips of features.1.lif" in report


def test_torch_programs(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folded, out = digits / "folded.safetensors", tmp_path / "digits.pt2"
    assert main(["export", str(folded), "--to", "torch", "-o", str(out)]) == 0
    x = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(torch.export.load(out).module()(x), sf.load(folded)(x))
    capsys.readouterr()
    words = ["check", str(out), str(folded), "--data", "digits", "--samples", "100", "--json"]
    assert main(words) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["runtime"] == "torch"
    assert record["file"]["decisions"] == (2 * 16 * 64 + 32 * 16 + 32 * 4) * 3 * 100
    assert record["source"] == sf.export.file_hash(folded)
    assert main(["check", str(out), str(folded), "--data", "digits", "--runtime", "openvino"]) == 1
    assert "a torch program is run by torch" in capsys.readouterr().err


@pytest.mark.parametrize("taken", [(), ("folded.safetensors", "a network-folded.safetensors")])
def test_the_command_that_folds_first_works_as_printed(
    taken: tuple[str, ...], digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, out = tmp_path / "a network.safetensors", tmp_path / "out.onnx"
    network.write_bytes((digits / "trained.safetensors").read_bytes())
    for name in taken:
        (tmp_path / name).write_text("mine")
    assert main(["export", str(network), "-o", str(out)]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    spikefold, *words = shlex.split(told.partition("fold it first: ")[2])
    assert spikefold == "spikefold"
    assert main(words) == 0
    assert main(["export", words[-1], "-o", str(out)]) == 0
    assert all((tmp_path / name).read_text() == "mine" for name in taken)


def test_of_a_run_that_is_not_folded(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "best.safetensors").write_bytes((digits / "trained.safetensors").read_bytes())
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "out.onnx")]) == 1
    *_, command = capsys.readouterr().err.partition("fold it first: ")
    assert main(shlex.split(command)[1:]) == 0
    assert main(["export", str(tmp_path), "-o", str(tmp_path / "out.onnx")]) == 0


@pytest.mark.usefixtures("as_user")
def test_shapes_are_compared_before_data_are_read(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There are no data in that folder, and to look for them is an error of its own."""
    folded, out = str(digits / "folded.safetensors"), tmp_path / "digits.onnx"
    sf.to_onnx(sf.load(folded), out)
    colour = sf.fold(sf.models.small(in_channels=3, steps=3, width=0.1).eval())
    sf.save(colour, tmp_path / "colour.safetensors")
    for suffix, write in (("onnx", sf.to_onnx), ("pt2", sf.to_torch), ("nir", sf.to_nir)):
        write(colour, tmp_path / f"colour.{suffix}")  # type: ignore[operator]
    nowhere = ["--data", "cifar10", "--root", str(tmp_path / "nowhere")]
    for words, told in (
        ([str(out), folded], "the network takes images of 1 channels, 8x8, but cifar10 has images"),
        ([f"{tmp_path}/colour.onnx", folded], "takes images [N, 3, 32, 32], got [1, 8, 8] of"),
        ([f"{tmp_path}/colour.pt2", folded], "takes images [N, 3, 32, 32], got [1, 8, 8] of"),
        ([f"{tmp_path}/colour.nir", folded], "takes frames [T, N, 3, 32, 32], got [1, 8, 8] of"),
        ([f"{tmp_path}/colour.onnx", f"{tmp_path}/colour.safetensors"], "nowhere"),
    ):
        assert main(["check", *words, *nowhere]) == 1
        error = capsys.readouterr().err
        assert told in error
        assert error.count("\n") == 1


def test_a_file_that_says_nothing_of_its_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = sf.fold(sf.models.small(in_channels=2, steps=3, width=0.1, image_size=8).eval())
    sf.save(network, tmp_path / "events.safetensors")
    words = ["export", str(tmp_path / "events.safetensors"), "-o", str(tmp_path / "events.onnx")]
    assert main(words) == 0
    assert "note: " in capsys.readouterr().err
    (x,) = onnx.load(tmp_path / "events.onnx").graph.input
    assert [d.dim_value or d.dim_param for d in x.type.tensor_type.shape.dim] == [3, "N", 2, 8, 8]


WRONG: dict[str, tuple[list[str], int, str]] = {
    "unfolded": (
        ["export", "trained.safetensors", "-o", "new.onnx"],
        1,
        "not folded: fold it first: ",
    ),
    "exists": (["export", "folded.safetensors", "-o", "trained.safetensors"], 1, "--overwrite"),
    "no neurons of that name": (
        ["export", "folded.safetensors", "-o", "new.onnx", "--spikes", "features.1"],
        1,
        "unknown layer of neurons 'features.1': did you mean 'features.1.lif'?",
    ),
    "spikes of torch": (
        ["export", "folded.safetensors", "-o", "new.pt2", "--to", "torch", "--spikes", "a"],
        2,
        "--spikes is for --to onnx",
    ),
    "compiled ONNX": (
        ["export", "folded.safetensors", "-o", "new.onnx", "--compile"],
        2,
        "--compile is for --to torch",
    ),
    "scan of torch": (
        ["export", "folded.safetensors", "-o", "new.pt2", "--to", "torch", "--layout", "scan"],
        1,
        "torch has the layouts merged and step",
    ),
    "no ONNX": (
        ["check", "trained.safetensors", "folded.safetensors", "--data", "digits"],
        1,
        "no ONNX file",
    ),
    "no network": (["check", "folded.onnx", "folded.onnx", "--data", "digits"], 1, "safetensors"),
    "other data": (
        ["check", "folded.onnx", "folded.safetensors", "--data", "digits-events"],
        1,
        "the network takes images of 1 channels, 8x8, but digits-events has 6 frames",
    ),
    "on a GPU": (
        ["check", "folded.onnx", "folded.safetensors", "--data", "digits", "--device", "cuda"],
        2,
        "compared on the CPU",
    ),
    "into a folder": (
        ["export", "folded.safetensors", "-o", ".", "--overwrite"],
        1,
        ". is a folder: give the name of a file in it",
    ),
    "no runtime": (
        ["check", "folded.onnx", "folded.safetensors", "--data=cifar10", "--runtime=tensorrt"],
        1,
        f"unknown runtime 'tensorrt': one of {', '.join(RUNTIMES)}",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_told_in_one_line(
    digits: Path, name: str, as_user: None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(digits)
    if not Path("folded.onnx").exists():
        sf.to_onnx(sf.load("folded.safetensors"), "folded.onnx")
    words, status, told = WRONG[name]
    capsys.readouterr()
    assert main(words) == status
    captured = capsys.readouterr()
    assert told in " ".join(captured.err.split())
    assert not captured.out
    assert "Traceback" not in captured.err
    assert status == 2 or captured.err.count("\n") == 1
    assert not Path("new.onnx").exists()


def test_a_missing_package_is_named(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnx", None)
    folded = str(digits / "folded.safetensors")
    assert main(["export", folded, "-o", str(tmp_path / "digits.onnx")]) == 1
    assert "pip install 'spikefold[export]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_the_official_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Imported, folded, exported, checked: the commands of docs/deploy.md, on images of noise."""
    monkeypatch.chdir(tmp_path)
    network = sf.models.resnet20(norm="mpbn", width=0.125, steps=2, num_classes=2)
    trained(network, torch.rand(4, 3, 32, 32), torch.rand(4, 3, 32, 32))
    torch.save(sf.adopt.to_official(network), "res20_mpbn.pth")
    for number in range(12):
        folder = tmp_path / "images" / ("train" if number < 4 else "test") / f"{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = torch.randint(0, 256, (32, 32, 3), dtype=torch.uint8).numpy()
        Image.fromarray(noise).save(folder / f"{number}.png")
    for words in (
        "import res20_mpbn.pth --from official --model resnet20 --steps 2 -o net.safetensors",
        "fold net.safetensors -o folded.safetensors",
        "export folded.safetensors --to onnx -o net.onnx",
        "check net.onnx folded.safetensors --data folder --root images --json",
    ):
        capsys.readouterr()
        assert main(words.split()) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["samples"] == 8
    assert record["file"]["decisions"] > 100_000
    assert record["passed"]
