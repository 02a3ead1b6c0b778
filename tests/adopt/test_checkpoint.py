"""`.pth` files: read without executing anything, or refused in one line."""

import json
import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from torch import nn

import spikefold as sf
from spikefold.adopt import read_checkpoint
from spikefold.cli import main
from spikefold.errors import AdoptError, FileFormatError
from tests.adopt.test_official import made_up


class Wicked:
    """Unpickling it creates the file `where`."""

    def __init__(self, where: Path) -> None:
        self.where = where

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.where),)


def test_imported_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    official, images = made_up("resnet20")
    torch.save(official.tensors, tmp_path / "res20.pth")
    output = tmp_path / "net.safetensors"
    words = ["import", str(tmp_path / "res20.pth"), "--from", "official", "--model", "resnet20"]
    words += ["-o", str(output), "--steps", "2", "--standardize", "cifar10"]
    assert main([*words, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["classes"], record["norm"], record["dtype"]) == (7, "mpbn", "float64")
    expected = sf.from_official(tmp_path / "res20.pth", "resnet20", steps=2, standardize="cifar10")
    assert torch.equal(sf.load(output)(images), expected(images))
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert "resnet20" in capsys.readouterr().out
    assert main(["fold", str(output), "-o", str(tmp_path / "folded.safetensors")]) == 0


@pytest.mark.parametrize("old", [False, True])
def test_a_whole_pickled_model_is_refused_and_not_executed(tmp_path: Path, old: bool) -> None:
    path, done = tmp_path / "model.pth", tmp_path / "done"
    zipped = {"_use_new_zipfile_serialization": not old}
    for content in (nn.Sequential(nn.Linear(2, 2)), Wicked(done), {"options": Namespace(lr=0.1)}):
        torch.save(content, path, **zipped)
        with pytest.raises(FileFormatError, match=r"torch.save\(model.state_dict\(\), PATH\)") as e:
            read_checkpoint(path)
        assert "\n" not in str(e.value)
    assert not done.exists()


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save({"a": torch.arange(50.0)}, whole)
    assert torch.equal(read_checkpoint(whole)["a"], torch.arange(50.0))
    content = whole.read_bytes()
    cut = [content[: len(content) * part // 7] for part in range(7)]
    torch.save({"a": torch.ones(5)}, whole, _use_new_zipfile_serialization=False)
    old = whole.read_bytes()
    cut += [old[:part] for part in range(0, len(old) - 1, 17)]
    cut += [b"\x80", b"PK\x03\x04" + b"x" * 90, b"class,label\n1,2\n", os.urandom(300)]
    for damaged in cut:
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError) as raised:
            read_checkpoint(path)
        assert "cut.pth" in str(raised.value)
        assert "\n" not in str(raised.value)
    with pytest.raises(FileFormatError, match="no such file"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save([torch.ones(3)], path)
    with pytest.raises(AdoptError, match="a list, not a state dict"):
        read_checkpoint(path)


def test_a_mistake_at_the_command_line_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    torch.save(made_up("resnet19")[0].tensors, tmp_path / "res19.pth")
    output = tmp_path / "net.safetensors"
    for name, model, status, message in (
        ("model.pth", "resnet20", 1, "would execute code"),
        ("res19.pth", "resnet20", 1, "these are the tensors of resnet19"),
        ("none.pth", "resnet20", 1, "no such file"),
        ("res19.pth", "resnet21", 2, "resnet21"),
    ):
        words = ["import", str(tmp_path / name), "--model", model, "-o", str(output)]
        assert main(words) == status
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error
        if status == 1:
            assert len(error.splitlines()) == 1
    assert not output.exists()
