"""`check` of torch programs: operators run one by one, and nothing of the file is executed."""

import functools
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import spikefold as sf
from spikefold.errors import ExportError
from spikefold.export import Layout
from spikefold.export._torch_file import TorchFile
from tests.export.running import trained
from tests.export.test_networks import NETWORKS

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@functools.cache
def network() -> Any:
    torch.manual_seed(0)
    made = sf.models.small(in_channels=1, steps=3, image_size=8, width=0.3, norm="mpbn")
    return sf.fold(trained(made, torch.rand(8, 1, 8, 8)))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program of each layout."""
    folder = tmp_path_factory.mktemp("programs")
    for layout in ("merged", "step"):
        sf.to_torch(network(), folder / f"{layout}.pt2", layout=layout)
    return folder


@pytest.mark.parametrize("layout", ["merged", "step"])
def test_every_decision_is_compared(layout: Layout, programs: Path) -> None:
    path = programs / f"{layout}.pt2"
    record = sf.check(network(), path, [IMAGES[:4], (IMAGES[4:], torch.zeros(2))])
    # channels 10, 10, 19, 19 of 8x8, 8x8, 4x4, 2x2 places; three steps of six samples
    assert record.file.decisions == (10 * 64 + 10 * 64 + 19 * 16 + 19 * 4) * 3 * 6
    assert record.samples == 6
    assert record.runtime == "torch"
    assert record.passed
    assert record.file.differ == record.file.unseen == 0


@torch.no_grad()
def test_it_computes_what_torch_does_with_the_file(programs: Path) -> None:
    merged, step = programs / "merged.pt2", programs / "step.pt2"
    module = torch.export.load(merged).module()
    for x in (IMAGES, IMAGES[:1]):
        assert torch.equal(TorchFile(merged).run(x), module(x))
    module = torch.export.load(step).module()
    v = {name: torch.zeros_like(s.v) for name, s in network().step(IMAGES)[1].items()}
    logits = []
    for _ in range(3):
        now, v = module(IMAGES, v)
        logits.append(now)
    assert torch.equal(TorchFile(step).run(IMAGES), torch.stack(logits).mean(0))


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_unusual_shapes(name: str, tmp_path: Path) -> None:
    make, x = NETWORKS[name]
    one, path = trained(make(), x, x), tmp_path / "network.pt2"
    sf.to_torch(one, path, example=x)
    record = sf.check(one, path, [x])
    assert record.file.decisions > 0
    assert record.file.differ == record.file.classes == 0
    assert record.passed


def test_frames_thresholds_of_each_step_and_learnt_decays(tmp_path: Path) -> None:
    frames, path = torch.rand(3, 2, 2, 8, 8), tmp_path / "network.pt2"
    small = functools.partial(sf.models.small, in_channels=2, steps=3, image_size=8, width=0.2)
    folded = sf.fold(trained(small(norm="mpbn-steps", learn_decay="channel"), frames, frames))
    sf.to_torch(folded, path, example=frames)
    record = sf.check(folded, path, [frames])
    assert record.passed
    assert record.file.decisions == (2 * 6 * 64 + 13 * 16 + 13 * 4) * 3 * 2
    assert record.file.differ == 0


@torch.no_grad()
def test_images_shown_for_other_steps_than_the_network_s(tmp_path: Path) -> None:
    path = tmp_path / "network.pt2"
    sf.to_torch(network(), path, steps=2)
    assert sf.check(network(), path, [IMAGES]).file.decisions == (20 * 64 + 19 * 20) * 2 * 6
    given = torch.export.load(path).module()(IMAGES)
    torch.testing.assert_close(given, network()(IMAGES, steps=2), atol=1e-6, rtol=0)
    assert not network()._forward_hooks
    assert network()(IMAGES).shape == given.shape


def test_a_threshold_that_moved_is_caught(programs: Path) -> None:
    moved = sf.fold(sf.models.small(in_channels=1, steps=3, image_size=8, width=0.3).eval())
    moved.load_state_dict(network().state_dict())
    moved.features[1].lif.theta += 1e-3
    for layout in ("merged", "step"):
        record = sf.check(moved, programs / f"{layout}.pt2", [IMAGES])
        assert not record.passed
        assert set(record.layers) == {"features.1.lif"}


def test_what_a_program_says_about_itself(tmp_path: Path) -> None:
    folded = sf.fold(sf.models.small(in_channels=1, steps=3, image_size=8, width=0.1).eval())
    digits = sf.data.load_dataset("digits", 0.1, 0)
    folded.input_spec = sf.data.spec_of(digits)
    source, path = tmp_path / "a.safetensors", tmp_path / "a.pt2"
    sf.save(folded, source)
    sf.to_torch(folded, path, source=source)
    files = {"spikefold": ""}
    program = torch.export.load(path, extra_files=files)
    said = json.loads(files["spikefold"])
    assert said["input"]["classes"] == [str(digit) for digit in range(10)]
    assert said["steps"] == 3
    assert said["version"] == "0.1.0"
    assert sf.check(folded, path, [IMAGES]).source == sf.export.file_hash(source)
    assert {name for _, name in said["neurons"]} <= {node.name for node in program.graph.nodes}
    # no paths of the machine that wrote it
    assert str(Path(sf.__file__).parent).encode() not in path.read_bytes()


def repacked(path: Path, change: Callable[[dict[str, bytes]], None], **options: Any) -> None:
    """The archive written again, its files by name changed."""
    with zipfile.ZipFile(path) as archive:
        content = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(content)
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in content.items():
            archive.writestr(f"archive/{name}", data)


MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


def changed(name: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    """A change of what JSON in the archive says."""

    def repack(content: dict[str, bytes]) -> None:
        said = json.loads(content[name])
        change(said)
        content[name] = json.dumps(said).encode()

    return repack


def ran(folder: Path) -> Path:
    """What is there if something in the file was executed."""
    return folder / "ran"


class Payload:
    """Unpickled, it writes a file into the folder at hand."""

    def __reduce__(self) -> Any:
        return exec, ("open('ran', 'w').close()",)


def pickled(content: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    torch.save(Payload(), buffer)
    content["data/weights/weight_0"] = buffer.getvalue()

    def mark(said: Any) -> None:
        next(iter(said["config"].values()))["use_pickle"] = True

    changed(WEIGHTS, mark)(content)


def guarded(said: Any) -> None:
    said["guards_code"] = ["open('ran', 'w').close() is None"]


def nodes(said: Any) -> Any:
    return said["graph_module"]["graph"]["nodes"]


def measured(said: Any) -> None:
    values = said["graph_module"]["graph"]["tensor_values"]
    text = "__import__('pathlib').Path('ran').touch()"
    values["x"]["sizes"][0]["as_expr"]["expr_str"] = text


def called(target: str) -> Callable[[Any], None]:
    def change(said: Any) -> None:
        nodes(said)[-1]["target"] = target

    return change


HOSTILE: dict[str, tuple[Callable[[dict[str, bytes]], None], str]] = {
    "pickle": (pickled, "a tensor is pickled"),
    "saves": (changed(MODEL, called("torch.ops.aten.save.default")), "'torch.ops.aten.save"),
    "system": (changed(MODEL, called("os.system")), "the operator 'os.system'"),
    "method": (changed(MODEL, called("torch.ops.aten.mean.overloads")), "is no operator"),
    "attribute": (changed(MODEL, called("torch.ops.aten.mean.__init__")), "the operator"),
    "compiled": (lambda c: c.update({"data/aotinductor/model/a.so": b"\x7fELF"}), "compiled: to"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_code_in_a_file_is_refused(
    name: str, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_user: None
) -> None:
    monkeypatch.chdir(tmp_path)
    change, told = HOSTILE[name]
    path = tmp_path / "network.pt2"
    path.write_bytes((programs / "merged.pt2").read_bytes())
    repacked(path, change)
    with pytest.raises(ExportError, match=told) as caught:
        sf.check(network(), path, [IMAGES])
    assert "\n" not in str(caught.value)
    assert not ran(tmp_path).exists()


@pytest.mark.parametrize("change", [guarded, measured])
def test_text_in_a_file_is_not_evaluated(
    change: Callable[[Any], None], programs: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.pt2"
    path.write_bytes((programs / "merged.pt2").read_bytes())
    repacked(path, changed(MODEL, change))
    assert sf.check(network(), path, [IMAGES]).passed
    assert not ran(tmp_path).exists()


def test_what_is_hostile_runs_where_torch_loads_it(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the two tests above look at something."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "network.pt2"
    for change in (pickled, changed(MODEL, guarded), changed(MODEL, measured)):
        path.write_bytes((programs / "merged.pt2").read_bytes())
        repacked(path, change)
        try:
            torch.export.load(path).module()(IMAGES)
        except Exception as error:  # it ran before it was seen to make no sense
            print(error)
        assert ran(tmp_path).exists(), change
        ran(tmp_path).unlink()


def foreign(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(3, 4), (torch.rand(2, 3),)), path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2000])


def packed(path: Path) -> None:
    repacked(path, lambda content: None, compression=zipfile.ZIP_DEFLATED)


def without_spikes(path: Path) -> None:
    repacked(path, changed("extra/spikefold", lambda said: said.update(neurons=[["a", "b"]])))


def beyond(path: Path) -> None:
    def shift(said: Any) -> None:
        meta = next(iter(said["config"].values()))["tensor_meta"]
        meta["storage_offset"]["as_int"] = 10**6

    repacked(path, changed(WEIGHTS, shift))


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "foreign": (foreign, "not exported by spikefold"),
    "a checkpoint": (
        lambda path: torch.save({"a": torch.rand(2)}, path),
        "no program of torch.export",
    ),
    "cut off": (cut, "no program of torch.export, or damaged"),
    "packed": (packed, "it is packed"),
    "its spikes renamed": (without_spikes, "the spikes of 'a' are not in it"),
    "tensors beyond the file": (beyond, "out of bounds for storage"),
}


@pytest.mark.parametrize("name", WRONG)
def test_other_files_are_told_in_one_line(
    name: str, programs: Path, tmp_path: Path, as_user: None
) -> None:
    path = tmp_path / "network.pt2"
    path.write_bytes((programs / "merged.pt2").read_bytes())
    change, told = WRONG[name]
    change(path)
    with pytest.raises(ExportError, match=told) as caught:
        sf.check(network(), path, [IMAGES])
    assert "\n" not in str(caught.value)


def test_inputs_runtimes_and_networks_that_do_not_fit(programs: Path, as_user: None) -> None:
    path = programs / "merged.pt2"
    with pytest.raises(ExportError, match=r"takes images \[N, 1, 8, 8\], got \[6, 1, 9, 9\]"):
        sf.check(network(), path, [torch.rand(6, 1, 9, 9)])
    with pytest.raises(ExportError, match="a torch program is run by torch"):
        sf.check(network(), path, [IMAGES], runtime="onnxruntime")
    other = sf.fold(sf.models.compact(in_channels=1, steps=3, image_size=16, width=0.1).eval())
    with pytest.raises(ExportError, match="exported from another network"):
        sf.check(other, path, [torch.rand(2, 1, 16, 16)])
