"""Runs that go on, that are repeated, and that a module of the user's own takes part in."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spikefold.cli import main
from spikefold.recipes import RECIPES
from spikefold.saving import read

TINY = ["--model.width", "0.1", "--model.steps", "1", "--optimizer.batch-size", "512"]
CONSTANT = ["--optimizer.schedule", "constant"]
PROGRAM = str(Path(sys.executable).with_name("spikefold"))

LAB = """
import torch, spikefold as sf

@sf.models.register(sf.models.Arguments)
def lab_net(builder, width):
    '''One convolution.'''
    return [builder.conv(4)]

def samples(count):
    images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(count))
    return sf.data.TensorSamples(images, torch.arange(count) % 2)

def parts(root):
    return sf.data.Parts(("a", "b"), lambda: samples(400), lambda: samples(40))

sf.data.register(sf.data.DatasetInfo("lab-data", "noise", load=parts))
sf.recipes.register(sf.recipes.Recipe("lab", "noise", sf.training.Experiment(
    sf.training.DataConfig("lab-data"),
    sf.training.ModelConfig("lab_net"),
    sf.training.OptimizerConfig(epochs=3, batch_size=4),
)))
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def train(*words: str) -> None:
    assert main(["train", *words]) == 0


def lines(directory: Path) -> list[dict]:
    """The run's metrics, without its times."""
    records = (directory / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(r).items() if k != "seconds"} for r in records]


def settings(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())  # type: ignore[no-any-return]


def test_a_run_goes_on_without_its_options_and_longer_where_that_is_the_same_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    train("digits", "--out", "short", *TINY, *CONSTANT, "--optimizer.epochs", "1")
    begun = settings(Path("short"))
    assert begun["recipe"] == "digits"
    train("--resume", "short")
    train("digits", "--resume", "--out", "short")
    train("./short", "--resume", *TINY)
    train("short/config.json", "--resume")
    assert settings(Path("short")) == begun
    assert len(lines(Path("short"))) == 1
    capsys.readouterr()
    train("--resume", "short", "--optimizer.epochs", "2", "--json")
    assert json.loads(capsys.readouterr().out)["directory"] == "short"
    assert settings(Path("short"))["optimizer"]["epochs"] == 2
    train("digits", "--out", "long", *TINY, *CONSTANT, "--optimizer.epochs", "2")
    assert lines(Path("short")) == lines(Path("long"))
    one, other = (read(Path(name, "last.safetensors")) for name in ("short", "long"))
    for name, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[name]), name


REFUSED = (
    (["--optimizer.epochs", "3"], "epochs is 2 there, 3 here; its learning rate falls along a "
     "cosine to 0 in 2 epochs, .*--init run/best.safetensors$"),
    (["--optimizer.epochs", "1"], "epochs is 2 there, 1 here; it can only be made longer$"),
    (["--optimizer.epochs", "3", "--seed", "1"],
     "run/config.json: optimizer.epochs is 2 there, 3 here, seed is 0 there, 1 here$"),
    (["--model.width", "0.2"], "model.width is 0.1 there, 0.2 here$"),
    (["--overwrite"], "--resume goes on with a run, --overwrite replaces it"),
)  # fmt: skip


def test_a_run_is_not_made_another(capsys: pytest.CaptureFixture[str]) -> None:
    train("digits", "--out", "run", *TINY, "--optimizer.epochs", "2")
    before = {path: path.read_bytes() for path in Path("run").iterdir()}
    capsys.readouterr()
    for words, message in REFUSED:
        for run in (["--resume", "run"], ["digits", "--out", "run", "--resume"]):
            assert main(["train", *run, *words]) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert re.search(message, line), line
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before
    # weights that would be gone before they are read
    words = ["--init", "run/best.safetensors", "--out", "run", "--overwrite", *TINY]
    assert main(["train", "digits", *words]) == 1
    assert "run/best.safetensors lies in run, which would be" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path("run").iterdir()} == before


def test_a_recipe_is_a_file_and_so_is_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "digits", *TINY, "--optimizer.epochs", "1"]) == 0
    text = capsys.readouterr().out
    Path("my own.toml").write_text(text)
    train("my own.toml")
    assert settings(Path("runs/my own")) == {
        "recipe": "my own", **settings(Path("runs/my own")), "seed": 0
    }  # fmt: skip
    train("runs/my own/config.json")
    assert lines(Path("runs/my own-again")) == lines(Path("runs/my own"))
    assert settings(Path("runs/my own-again")) == settings(Path("runs/my own"))
    capsys.readouterr()
    # a recipe that was changed meanwhile: the run goes on as it was begun, and says so
    Path("my own.toml").write_text(text.replace("\nseed = 0", "\nseed = 5"))
    train("my own.toml", "--resume")
    assert capsys.readouterr().err.splitlines()[0] == (
        "spikefold: note: going on as runs/my own/config.json says, not as my own.toml: "
        "seed is 0 there, 5 here"
    )
    assert main(["show", "my own.toml", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["experiment"]["seed"], shown["recipe"]) == (5, "my own")
    assert shown["command"] == "spikefold run 'my own.toml'"
    assert main(["train", "my own.toml", "--help"]) == 0
    assert "--model.width" in capsys.readouterr().out


def test_a_sweep_over_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "digits", *TINY, "--optimizer.epochs", "1"]) == 0
    Path("mine.toml").write_text(capsys.readouterr().out)
    words = ["sweep", "mine.toml", "--seeds", "4", "--vary", "optimizer.name=adamw", "--json"]
    assert main(words) == 0
    found = sorted(path.relative_to("runs/sweep") for path in Path("runs").glob("**/summary.json"))
    assert [str(path) for path in found] == ["mine/optimizer.name=adamw/seed-4/summary.json"]
    record = json.loads(Path("runs/sweep", found[0]).read_text())
    assert (record["recipe"], record["experiment"]["optimizer"]["name"]) == ("mine", "adamw")
    capsys.readouterr()
    assert main(words) == 0
    assert "train" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--resume", "none"], "none holds no run to resume"),
        (["train", "none/config.json", "--resume"], "cannot be read: No such file"),
        (["train", "none.toml"], "none.toml: cannot be read: No such file"),
        (["--import", "nowhere.at.all", "recipes"], "cannot import nowhere.at.all: ModuleNotFound"),
        (["--import=nowhere", "recipes"], "cannot import nowhere: ModuleNotFoundError"),
        (["--import"], "--import: name a module, as in --import mylab.experiments"),
        (["--import", "--json", "recipes"], "--import: name a module"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"spikefold: {message}") or message in line
    assert not Path("runs").exists()


@pytest.fixture
def lab(tmp_path: Path) -> None:
    """A package in the current directory, not installed."""
    Path("mylab").mkdir()
    Path("mylab/__init__.py").touch()
    Path("mylab/experiments.py").write_text(LAB)
    assert "lab" not in RECIPES


def spikefold(*words: str) -> str:
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("lab")
def test_ctrl_c_tells_a_command_that_goes_on() -> None:
    command = [PROGRAM, "--import", "mylab.experiments", "train", "lab", "--json"]
    process = subprocess.Popen(
        [*command, "--out", "a run's"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a job in the background of a shell would ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    while process.poll() is None and not Path("a run's", "metrics.jsonl").exists():
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    hint = err.splitlines()[-1].partition("from the last epoch: ")[2]
    assert hint.startswith("spikefold --import mylab.experiments train --resume")
    path = f"{Path(PROGRAM).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        hint, shell=True, capture_output=True, text=True, env=os.environ | {"PATH": path}
    )
    assert done.returncode == 0, done.stderr
    assert "best.safetensors" in done.stdout
    assert len(lines(Path("a run's"))) == 3
    assert settings(Path("a run's"))["recipe"] == "lab"


@pytest.mark.slow
@pytest.mark.usefixtures("lab")
def test_other_processes_know_what_was_imported() -> None:
    imports = ["--import", "mylab.experiments"]
    assert "lab_net" in spikefold(*imports, "show", "lab")
    spikefold(*imports, "train", "lab", "--hardware.devices", "2", "--optimizer.epochs", "1")
    spikefold(
        *imports, "sweep", "lab", "--seeds", "0", "1", "--jobs", "2", "--vary", "optimizer.epochs=1"
    )
    assert len(list(Path("runs/sweep").glob("**/summary.json"))) == 2
    network = "runs/lab/best.safetensors"
    done = subprocess.run([PROGRAM, "fold", network, "-o", "f"], capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "unknown model 'lab_net': it has to be registered first; import the package" in line
    spikefold(*imports, "fold", network, "-o", "folded.safetensors")
    assert "0" in spikefold(*imports, "verify", network, "folded.safetensors", "--data", "lab-data")
