"""What is attacked: each target makes an attempt of a seeded generator in a folder of its own.

An attempt may raise only what a user gets as one line; the harness sees to anything else.
"""

import contextlib
import gzip
import io
import json
import lzma
import math
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import onnx
import safetensors.torch
import torch
from PIL import Image

import spikefold as sf
from spikefold.cli import main
from spikefold.data import Framing, load_dataset, read_image, read_recording
from spikefold.plain import to_plain
from spikefold.recipes import find_recipe, read_recipe, to_toml
from spikefold.reports import (
    Run,
    accuracy_records,
    accuracy_table,
    read_summaries,
    read_summary,
    write_page,
)
from spikefold.saving import read
from spikefold.saving._file import checksum, read_file
from spikefold.training import Experiment
from tests.data.formats import aedat4, dat, evt2, evt3, five_bytes
from tests.fuzz.mutations import altered, damaged, dumped
from tests.reports.pages import records, summary, write_run

Attempt = Callable[[random.Random], None]
TARGETS: dict[str, Callable[[Path], Attempt]] = {}
ROWS = [(n % 30, n * 7 % 30, 100 * n, n % 2) for n in range(40)]


def target(make: Callable[[Path], Attempt]) -> Callable[[Path], Attempt]:
    """Enter a target under its function's name."""
    TARGETS[make.__name__] = make
    return make


@target
def network_bytes(folder: Path) -> Attempt:
    """A network file whose bytes are damaged."""
    network = sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2)
    path = folder / "n.safetensors"
    sf.save(sf.fold(network), path)
    whole = path.read_bytes()

    def attempt(chance: random.Random) -> None:
        path.write_bytes(damaged(chance, whole))
        sf.load(path)(torch.rand(1, 1, 8, 8))

    return attempt


@target
def network_header(folder: Path) -> Attempt:
    """A network file whose header says something else, with a checksum that fits."""
    network = sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2)
    path = folder / "n.safetensors"
    sf.save(sf.fold(network), path, extra={"metrics": {"epoch": 1}})
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["spikefold"])
    _, tensors = read_file(path)

    def attempt(chance: random.Random) -> None:
        changed = altered(chance, header)
        if isinstance(changed, dict) and "checksum" in changed:
            changed["checksum"] = checksum(changed, tensors)
        text = dumped(changed)
        safetensors.torch.save_file(tensors, path, {"spikefold": text})
        stored = read(path)
        assert stored.network(torch.rand(1, 1, 8, 8), steps=1).isfinite().all()

    return attempt


@target
def exported_files(folder: Path) -> Attempt:
    """An ONNX file given to `check` whose bytes are damaged, or that describes itself otherwise."""
    network = sf.fold(sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2).eval())
    path, x = folder / "n.onnx", torch.rand(2, 1, 8, 8)
    whole: list[bytes] = []
    for layout in get_args(sf.export.Layout):
        sf.to_onnx(network, path, layout=layout)
        whole.append(path.read_bytes())

    def attempt(chance: random.Random) -> None:
        model = chance.choice(whole)
        if chance.random() < 0.5:
            path.write_bytes(damaged(chance, model))
        else:
            parsed = onnx.load_from_string(model)
            entry = parsed.metadata_props[0]
            entry.value = dumped(altered(chance, json.loads(entry.value)))
            path.write_bytes(parsed.SerializeToString())
        sf.check(network, path, [x])

    return attempt


@target
def torch_programs(folder: Path) -> Attempt:
    """A torch program given to `check` whose bytes are damaged, or whose JSON says otherwise."""
    network = sf.fold(sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2).eval())
    path, x = folder / "n.pt2", torch.rand(2, 1, 8, 8)
    whole: list[bytes] = []
    for layout in ("merged", "step"):
        sf.to_torch(network, path, layout=layout)  # type: ignore[arg-type]
        whole.append(path.read_bytes())

    def attempt(chance: random.Random) -> None:
        content = chance.choice(whole)
        path.write_bytes(damaged(chance, content))
        if chance.random() < 0.7:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                files = {name: archive.read(name) for name in archive.namelist()}
            name = chance.choice([n for n in files if n.endswith(("json", "extra/spikefold"))])
            files[name] = dumped(altered(chance, json.loads(files[name]))).encode()
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        sf.check(network, path, [x])

    return attempt


STRANGE: tuple[Any, ...] = (
    *(-1, 0, 2.5, 10**9, math.nan, math.inf, b"Conv2d", b"LIF", b"", np.zeros((2, 3)), np.zeros(0)),
    *(np.ones((1, 1, 1, 1)), np.full((3, 3), b"x"), np.array([[b"input", b"input"]])),
)


@target
def nir_files(folder: Path) -> Attempt:
    """A NIR file given to `check` and so to `from_nir`, with damaged bytes or other fields."""
    network = sf.fold(sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2).eval())
    path, x = folder / "n.nir", torch.rand(2, 1, 8, 8)
    whole: list[bytes] = []
    for library in (None, "spikingjelly"):
        sf.to_nir(network, path, target=library)  # type: ignore[arg-type]
        whole.append(path.read_bytes())

    def attempt(chance: random.Random) -> None:
        content = chance.choice(whole)
        if chance.random() < 0.5:
            path.write_bytes(damaged(chance, content))
        else:
            path.write_bytes(content)
            with h5py.File(path, "r+") as file:
                names: list[str] = []
                file.visit(names.append)
                name = chance.choice(names)
                del file[name]
                if chance.random() < 0.8:
                    file[name] = chance.choice(STRANGE)
        sf.check(network, path, [x], runtime="spikefold")

    return attempt


@target
def network_tensors(folder: Path) -> Attempt:
    """A network file of format 1, which has no checksum, with other tensors."""
    path = folder / "n.safetensors"
    sf.save(sf.fold(sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2)), path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["spikefold"])
    header = {k: header[k] for k in ("version", "model", "arguments", "extra")}
    header |= {"format": 1, "transforms": ["fold"]}
    _, tensors = read_file(path)
    dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int8, torch.uint8,
              torch.bool, torch.complex64, torch.float8_e4m3fn]  # fmt: skip

    def attempt(chance: random.Random) -> None:
        changed, name = dict(tensors), chance.choice(list(tensors))
        value = changed[name].clone()
        match chance.randrange(5):
            case 0:
                del changed[name]
            case 1:
                changed[name] = value.to(chance.choice(dtypes))
            case 2:
                odd = chance.choice((float("nan"), float("inf"), -1e38, 0.0, -1.0, 3.0))
                if value.is_floating_point():
                    value.flatten()[: chance.choice((1, value.numel()))] = odd
                changed[name] = value
            case 3:
                changed[name] = value.flatten()[: chance.randrange(value.numel() + 1)].clone()
            case 4:
                changed["network.nonsense"] = value
        safetensors.torch.save_file(changed, path, {"spikefold": json.dumps(header)})
        logits = sf.load(path)(torch.rand(1, 1, 8, 8))
        assert not logits.isnan().any()

    return attempt


@target
def recordings(folder: Path) -> Attempt:
    """Event recordings of every format but AEDAT 4, then as frames."""
    arrays = io.BytesIO()
    columns = dict(zip("xytp", np.array(ROWS).T, strict=True))
    np.savez_compressed(arrays, **columns)  # type: ignore[arg-type]
    rows = io.BytesIO()
    np.save(rows, np.array([(x, y, p, t) for x, y, t, p in ROWS]))
    whole = {
        "a.bin": five_bytes(*ROWS),
        "a.bs2": five_bytes(*ROWS),
        "a.dat": dat(ROWS),
        "2.raw": evt2(ROWS),
        "3.raw": evt3(ROWS),
        "a.npz": arrays.getvalue(),
        "a.npy": rows.getvalue(),
    }
    return _read_damaged(folder, whole, _recording)


@target
def aedat4_recordings(folder: Path) -> Attempt:
    """AEDAT 4, whose reader panics and aborts."""
    return _read_damaged(folder, {"a.aedat4": aedat4(ROWS, (40, 40))}, _recording)


def _recording(path: Path) -> None:
    read = read_recording(path)
    sf.data.frames_of(read.events, Framing(3, 8, "time", read.sensor), str(path))


@target
def images(folder: Path) -> Attempt:
    """Image files of every format and of several modes."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    whole = {}
    for ending in ("png", "jpeg", "bmp", "webp", "ppm", "tiff"):
        for mode in ("RGB", "L"):
            file = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(file, ending)
            whole[f"{mode}.{ending}"] = file.getvalue()
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(file, "png")
    whole["16.png"] = file.getvalue()

    def look(path: Path) -> None:
        read = read_image(path, 8, 1.14)
        assert ((read >= 0) & (read <= 1)).all()

    return _read_damaged(folder, whole, look)


@target
def archives(folder: Path) -> Attempt:
    """N-MNIST's zip, Fashion-MNIST's idx.gz, CIFAR's .xz, each damaged before or after packing."""

    def packed(name: str, data: bytes) -> bytes:
        file = io.BytesIO()
        if name == "nmnist.zip":
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for part in ("Train", "Test"):
                    for n in range(20):
                        archive.writestr(f"{part}/{n % 10}/{n}.bin", data)
            return file.getvalue()
        return gzip.compress(data) if name.endswith(".gz") else lzma.compress(data)

    idx = b"\0\0\x08\3" + np.array([2, 28, 28], ">u4").tobytes() + bytes(2 * 28 * 28)
    inner = {
        "nmnist.zip": five_bytes(*ROWS),
        "train-images-idx3-ubyte.gz": idx,
        "data_batch_1.bin.xz": (bytes([3]) + bytes(3072)) * 2,
    }

    def attempt(chance: random.Random) -> None:
        name, data = chance.choice(list(inner.items()))
        before = chance.random() < 0.4
        file = packed(name, damaged(chance, data) if before else data)
        (folder / name).write_bytes(file if before else damaged(chance, file))
        match name:
            case "nmnist.zip":
                load_dataset("nmnist", validation=0.0, root=folder)
            case "train-images-idx3-ubyte.gz":
                sf.data._fashion_mnist.read_idx(folder / name)
            case _:
                sf.data._cifar._records(folder / name, 3073)

    return attempt


def _read_damaged(folder: Path, whole: dict[str, bytes], look: Callable[[Path], None]) -> Attempt:
    def attempt(chance: random.Random) -> None:
        name, data = chance.choice(list(whole.items()))
        (folder / name).write_bytes(damaged(chance, data))
        look(folder / name)

    return attempt


@target
def configurations(folder: Path) -> Attempt:
    """A run's configuration that says something else."""
    path = folder / "config.json"
    Experiment().save(path)
    plain = json.loads(path.read_text())

    def attempt(chance: random.Random) -> None:
        path.write_text(dumped(altered(chance, plain)))
        Experiment.load(path).build(load_dataset("digits"))

    return attempt


@target
def options(folder: Path) -> Attempt:
    """Numbers and names beyond reason for the options of the commands."""
    small = sf.models.small(in_channels=1, image_size=8, width=0.05, steps=2)
    sf.save(small, folder / "n.safetensors")
    Image.new("L", (8, 8)).save(folder / "a.png")
    n, a, out = (str(folder / name) for name in ("n.safetensors", "a.png", "out"))
    flags = [
        f"--{group}.{name}".replace("_", "-")
        for group, settings in json.loads(json.dumps(to_plain(Experiment()))).items()
        if isinstance(settings, dict)
        for name in settings
        if name != "augmentation"
    ]
    commands = [
        (["show", "digits"], [*flags, "--seed"]),
        (["evaluate", n, "--data", "digits"], ["--batch-size", "--device", "--root", "--split"]),
        (["cost", n, "--data", "digits"], ["--samples", "--batch-size", "--split"]),
        (["landscape", n, "--data", "digits", "--samples", "2"],
         ["--points", "--reach", "--seed", "--split", "--picture"]),
        (["predict", n, a], ["--steps", "--device", "--by"]),
        (["fold", n, "-o", out, "--overwrite"], ["--fuse", "--nonsense"]),
        (["fuse", n, "-o", out, "--overwrite"], ["--device", "--nonsense"]),
        (["recalibrate", n, "-o", out, "--overwrite", "--data", "digits"],
         ["--batch-size", "--seed", "--device"]),
    ]  # fmt: skip
    values = ["0", "-1", "1e309", "nan", "-inf", str(10**26), "1.5", "", "a", "true", "None", "3"]

    def attempt(chance: random.Random) -> None:
        words, known = chance.choice(commands)
        words = [*words, chance.choice(known), chance.choice(values)]
        heard = io.StringIO()
        with contextlib.redirect_stderr(heard), contextlib.redirect_stdout(heard):
            status = main(words)
        assert status in (0, 1, 2), (words, status)
        assert "Traceback" not in heard.getvalue(), words

    return attempt


@target
def recipe_files(folder: Path) -> Attempt:
    """A recipe of one's own, damaged."""
    path = folder / "my.toml"
    whole = to_toml(find_recipe("digits")).encode()

    def attempt(chance: random.Random) -> None:
        path.write_bytes(damaged(chance, whole))
        read_recipe(path)

    return attempt


@target
def summaries(folder: Path) -> Attempt:
    """Records of runs that say something else, or are of other programs."""
    accuracy = {"accuracy": 0.9, "correct": 9, "samples": 10, "loss": 0.1}
    compared = {"spikes": 100, "mismatches": 0, "samples": 10, "max_output_difference": 0.0}
    summary = {
        "recipe": "digits",
        "experiment": to_plain(Experiment()),
        "hardware": {"processor": "a", "torch": "2"},
        "samples": {"train": 80, "validation": 10, "test": 10},
        "notes": "",
        "seconds": 1.0,
        "validation": accuracy,
        "test": {"trained": accuracy, "folded": accuracy, "fused": accuracy},
        "fold": compared,
        "fuse": compared,
    }
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "summary.json").write_text(json.dumps(summary))

    def attempt(chance: random.Random) -> None:
        changed = dumped(altered(chance, summary))
        if chance.random() < 0.3:
            changed = damaged(chance, changed.encode()).decode(errors="replace")
        (folder / "b" / "summary.json").write_text(changed)
        records = accuracy_records(read_summaries([folder]))
        accuracy_table(records)

    return attempt


@target
def pages(folder: Path) -> Attempt:
    """A page of runs of which one record is damaged."""
    written = {"summary.json": summary(), **records()}
    place = write_run(folder / "run", summary(), records())
    lines = (place / "metrics.jsonl").read_text().splitlines()

    def attempt(chance: random.Random) -> None:
        name = chance.choice([*written, "metrics.jsonl"])
        if name in written:
            changed = whole = dumped(altered(chance, written[name]))
        else:
            changed = dumped(altered(chance, json.loads(lines[0])))
            whole = "\n".join(lines)
        if chance.random() < 0.3:
            changed = damaged(chance, whole.encode()).decode(errors="replace")
        kept = (place / name).read_text()
        (place / name).write_text(changed)
        try:
            write_page([Run(place, read_summary(place))], folder / "page.html")
        finally:
            (place / name).write_text(kept)

    return attempt
