"""The command line, used as a person and as a program would."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import spikefold as sf
from spikefold.cli import main
from spikefold.cli._main import COMMANDS
from spikefold.cli._sweep import SweepOptions, _require_same, plan
from spikefold.data import DATASETS
from spikefold.errors import ConfigError
from spikefold.models import MODELS, Options
from spikefold.plain import to_plain
from spikefold.recipes import RECIPES
from spikefold.records import SUMMARY, write_json

SMALL = ["--model.width", "0.25", "--model.steps", "2", "--optimizer.epochs", "2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished small run."""
    directory = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["run", "digits", "--out", str(directory), *SMALL]) == 0
    return directory


def run_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict:
    """Exit status 0 and one JSON object on standard output."""
    assert main([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_a_run_leaves_everything_that_is_promised(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        "config.json", "metrics.jsonl", "last.safetensors", "best.safetensors",
        "folded.safetensors", "fused.safetensors", "verification.json", "summary.json",
        "potentials.json", "thresholds.json", "raster.json", "confusions.json", "report.html",
        "learning_curves.png", "potentials.png", "thresholds.png", ".lock",
    }  # fmt: skip
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["fold"]["mismatches"] == 0
    assert summary["fold"]["max_output_difference"] == 0
    assert summary["fold"]["samples"] == 359
    assert summary["test"]["trained"] == summary["test"]["folded"]
    assert summary["experiment"]["model"]["width"] == 0.25
    confusions = json.loads((finished / "confusions.json").read_text())
    assert sum(count for *_, count in confusions["counts"]) == 359
    right = sum(count for label, predicted, count in confusions["counts"] if label == predicted)
    assert right == summary["test"]["trained"]["correct"]
    # but for a landscape, which is a command of its own
    assert (finished / "report.html").read_text().count("not recorded") == 1
    for name in ("learning_curves.png", "potentials.png", "thresholds.png"):
        assert (finished / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "twice"),
    [
        (["sweep", "digits", "--vary", "seed=1", "--vary", "model.norm=mpbn"], "--vary"),
        (["sweep", "digits", "--vary", "seed=1", "--vary=model.norm=none"], "--vary"),
        (["fold", "a", "-o", "b", "-o", "c"], "-o"),
        (["fold", "a", "-o", "b", "--output", "c"], "--output"),
        (["landscape", "a", "--out", "b", "-o", "c"], "-o"),
        (["evaluate", "a", "--batch-size", "4", "--batch_size=8"], "--batch_size"),
    ],
)
def test_an_option_given_twice_is_not_forgotten(
    words: list[str], twice: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 1
    told = f"{words[0]}: {twice} is given twice: put all its values behind one"
    assert capsys.readouterr().err.strip().endswith(told)


def test_fold_verify_evaluate(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best, folded = str(finished / "best.safetensors"), str(tmp_path / "folded.safetensors")
    record = run_json(["fold", best, "-o", folded], capsys)
    assert list(record["layers"]) == [f"features.{n}.lif" for n in (0, 1, 3, 5)]
    assert record["norms_left"] == {"BatchNorm2d": {"layers": 4, "operations": 3}}
    record = run_json(["verify", best, folded, "--data", "digits"], capsys)
    assert (record["mismatches"], record["samples"]) == (0, 359)
    assert record["accuracy"][0] == record["accuracy"][1]
    evaluated = run_json(["evaluate", folded, "--data", "digits", "--split", "validation"], capsys)
    assert evaluated["samples"] == 143
    for words in (["verify", best, folded], ["evaluate", folded]):
        assert main([*words, "--data", "digits"]) == 0
        shown = capsys.readouterr().out
        assert "accuracy" in shown
        assert not re.search(r"\d\.\d{5}", shown)  # a person reads it
    assert main(["fold", best, "-o", folded]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["fold", best, "-o", folded, "--overwrite", "--fuse"]) == 0
    assert capsys.readouterr().out.endswith("left: no normalization\n")
    assert sf.load(folded).transforms == ("fold", "fuse_conv_bn")


def test_fuse_with_and_without_a_fold(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a run's folder the folded network; a network without MPBN, which has nothing to fold."""
    out = str(tmp_path / "fused.safetensors")
    assert run_json(["fuse", str(finished), "-o", out], capsys) == {"output": out, "norms_left": {}}
    assert sf.load(out).transforms == ("fold", "fuse_conv_bn")
    plain, bare = (str(tmp_path / f"{name}.safetensors") for name in ("plain", "bare"))
    sf.save(sf.models.small(in_channels=1, steps=2, norm="none", current_norm="tab"), plain)
    sf.save(sf.models.small(in_channels=1, steps=2, current_norm="none"), bare)
    assert main(["fuse", plain, "-o", out]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["fuse", plain, "-o", out, "--overwrite"]) == 0
    told = f"fused: {out}\nleft: CurrentAffine in 4 layers, 2 operations a neuron and step each\n"
    assert capsys.readouterr().out == told
    assert main(["fuse", bare, "-o", out, "--overwrite"]) == 1
    assert "nothing to fuse" in capsys.readouterr().err
    assert sf.load(out).transforms == ("affine_currents",)  # what stood there
    assert main(["fold", bare, "-o", out, "--overwrite", "--fuse"]) == 0
    assert "note: folded only: no norm after a connection is left" in capsys.readouterr().err
    assert sf.load(out).transforms == ("fold",)


def test_verify_fails_where_spikes_differ(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = finished / "best.safetensors"
    folded = sf.fold(sf.load(best))
    folded.features[0].lif.theta.data += 0.5  # type: ignore[union-attr]
    sf.save(folded, tmp_path / "wrong.safetensors")
    words = ["verify", str(best), str(tmp_path / "wrong.safetensors"), "--data", "digits"]
    assert main([*words, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["mismatches"] > 0


def test_verify_says_where_it_proves_nothing(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = finished / "best.safetensors"
    assert main(["verify", str(best), str(finished / "." / best.name), "--data", "digits"]) == 1
    assert f"both networks are {best}: nothing would be proved" in capsys.readouterr().err
    shutil.copy(best, tmp_path / "copy.safetensors")
    words = ["verify", str(best), str(tmp_path / "copy.safetensors"), "--data", "digits"]
    assert main(words) == 0
    assert "both networks are as trained: this compares two" in capsys.readouterr().err


def test_datasets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(b"")
    record = run_json(["datasets", "--root", str(tmp_path)], capsys)
    assert record["cifar100"]["present"] == str(tmp_path)
    assert record["cifar10"]["present"] is None
    assert record["digits"]["present"]
    assert main(["datasets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for info in DATASETS.values():  # each on one line, and nothing cut
        (line,) = [line for line in lines if line.startswith(f"│ {info.name} ")]
        assert info.summary in line
        assert info.origin in line


def test_recipes_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert [r["recipe"] for r in run_json(["recipes"], capsys)] == list(RECIPES)
    record = run_json(["show", "digits", "--seed", "7"], capsys)
    assert record["experiment"]["seed"] == 7
    assert main(["show", "digits"]) == 0
    assert "\nlearning_rate = 0.1\n" in capsys.readouterr().out
    assert main(["recipes"]) == 0
    assert main(["--version"]) == 0
    assert main(["--help"]) == 0
    assert "evaluate" in capsys.readouterr().out


MODEL = {
    "name": ("resnet20", "resnet20"),
    "norm": ("mpbn-steps", "mpbn-steps"),
    "current_norm": ("tdbn", "tdbn"),
    "rate": ("0.25", 0.25),
    "width": ("0.5", 0.5),
    "steps": ("3", 3),
    "learn_decay": ("channel", "channel"),
    "standardize": (None, True),
    "decay": ("0.75", 0.75),
    "threshold": ("1.5", 1.5),
    "reset": ("soft", "soft"),
    "surrogate": ("atan", "atan"),
    "detach_reset": (None, True),
}


def test_every_setting_of_the_model_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    """Each changes the one that records call so, and help explains it."""
    default = run_json(["show", "digits"], capsys)["experiment"]["model"]
    assert default.keys() == MODEL.keys()
    assert main(["show", "digits", "--help"]) == 0
    text = capsys.readouterr().out
    for name, (word, value) in MODEL.items():
        option = f"--model.{name}".replace("_", "-")
        words = [option] if word is None else [option, word]
        changed = run_json(["show", "digits", *words], capsys)["experiment"]["model"]
        assert changed == default | {name: value} != default
        shown = text.partition(f" {option}")[2].splitlines()[1]
        assert shown.strip("│ ")[0] not in "(-", option
    planned = plan(SweepOptions(("digits",), (0,), ("model.norm=mpbn,none", "model.reset=soft")))
    models = [run.experiment.model for run in planned]
    assert [model.options.norm for model in models] == ["mpbn", "none"]
    assert {model.neuron for model in models} == {sf.Neuron(reset="soft")}


def test_a_default_that_no_word_can_name_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    recipe = RECIPES["digits"]
    model = dataclasses.replace(recipe.experiment.model, neuron=sf.Neuron(surrogate=sf.Tanh(2.0)))
    experiment = dataclasses.replace(recipe.experiment, model=model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "digits", dataclasses.replace(recipe, experiment=experiment))
        record = run_json(["show", "digits", "--model.decay", "0.5"], capsys)["experiment"]
        assert main(["show", "digits", "--help"]) == 0
    assert record["model"]["surrogate"] == {"name": "tanh", "k": 2.0}
    assert "Tanh(k=2.0)" in capsys.readouterr().out


def test_a_finished_run_of_an_earlier_version_is_not_run_again(tmp_path: Path) -> None:
    """Its record has no settings that came later: they had their defaults."""
    (run,) = plan(SweepOptions(("digits",), (0,), ("model.norm=none",), tmp_path))
    record = to_plain(run.experiment)
    del record["model"]["learn_decay"], record["model"]["standardize"]
    run.directory.mkdir(parents=True)
    (run.directory / SUMMARY).write_text(json.dumps({"experiment": record}))
    _require_same(run)
    record["model"]["norm"] = "mpbn"
    (run.directory / SUMMARY).write_text(json.dumps({"experiment": record}))
    with pytest.raises(ConfigError, match="other settings"):
        _require_same(run)


def test_a_finished_run_is_known_again_whatever_its_folder_of_data_is_called(
    tmp_path: Path,
) -> None:
    (run,) = plan(SweepOptions(("digits",), (0,), out=tmp_path))
    data = dataclasses.replace(run.experiment.data, root="no UTF-8: \udcff")
    run = dataclasses.replace(run, experiment=dataclasses.replace(run.experiment, data=data))
    run.directory.mkdir(parents=True)
    write_json(run.directory / SUMMARY, {"experiment": to_plain(run.experiment)})
    _require_same(run)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    told = capsys.readouterr().out
    assert "(default:)" not in re.sub(r"[\s│]", "", told)
    usage = told.splitlines()[0]
    assert usage.startswith(f"usage: spikefold {command}")
    assert not re.search(r" (PATH|STR)\b(?! *\])", usage)  # what is expected has a name
    if command in ("run", "train", "show"):
        assert main([command, "digits", "--help"]) == 0
        text = capsys.readouterr().out
        assert "--model.decay" in text
        for names in (DATASETS, MODELS):
            assert f"{{{','.join(names)}}}" in re.sub(r"[\s│]", "", text)


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["trian", "digits"], 2, "did you mean 'train'"),
        (["run", "digit"], 1, "did you mean 'digits'"),
        (["run", "digits", "--optimizer.epoch", "3"], 2, "--optimizer.epochs"),
        (["run", "digits", "--model.steps", "many"], 2, "many"),
        (["run", "digits", "--model.surrogate", "relu"], 2, "rectangle"),
        (["run", "digits", "--model.decay", "2", "--out", "{tmp}/n"], 2, "must lie in [0, 1]"),
        (["run", "digits", "--model.steps", "0", "--out", "{tmp}/n"], 2, "steps must lie in"),
        (["run", "digits", "--resume", "--out", "{tmp}/none"], 1, "holds no run to resume"),
        (["train", "digits", "--out", "{tmp}/file/x"], 1, "cannot write"),
        (["train", "digits", "--out", "{run}"], 1, "--resume goes on with it"),
        (["train", "digits", "--out", "{run}", "--resume", "--seed", "3"], 1,
         "cannot resume with another configuration than {run}/config.json: seed is 0 there, 3"),
        (["fold", "{run}/config.json", "-o", "{tmp}/f"], 1, "not a safetensors file"),
        (["fold", "{run}/folded.safetensors", "-o", "{tmp}/f"], 1, "nothing to fold"),
        (["fold", "{run}/none", "-o", "{tmp}/f"], 1, "no such file"),
        (["fold", "{run}", "-o", "{tmp}/f.onnx"], 1, "spikefold export makes .onnx"),
        (["export", "{run}", "--to", "onnx", "-o", "{tmp}/f.nir"], 2, "f.nir is named as nir"),
        (["import", "{tmp}/none.pth", "-o", "{tmp}/f"], 2, "--model says which architecture"),
        (["predict", "{run}", "{tmp}/gray.png", "--picture", "{tmp}/a.jpg"], 1, "is a .png file"),
        (["fold", "{run}/best.safetensors", "-o", "{tmp}/file/f"], 1, "cannot write"),
        (["fold", "{run}/best.safetensors", "-o", "{tmp}", "--overwrite"], 1, "is a folder: give"),
        (["fold", "{run}/best.safetensors", "-o", "{tmp}/" + 300 * "x"], 1, "File name too long"),
        (["predict", "{run}/best.safetensors", "{tmp}/gray.png", "--picture", "{tmp}/a.png"],
         1, "{tmp}/a.png is a folder: give"),
        (["report", "{run}", "-o", "{run}/summary.json"], 1, "is written is a .html file"),
        (["report", "{run}", "-o", ""], 1, ". is a folder: give"),
        (["report", "{run}", "-o", "{tmp}/file/a.html"], 1, "{tmp}/file/a.html: Not a directory"),
        (["compare", "{run}", "{run}", "--picture", "{run}/summary.json"], 1, "is a .png file"),
        (["table", "{tmp}/odd"], 1, "{tmp}/odd/summary.json: Is a directory"),
        (["evaluate", "{run}/best.safetensors", "--data", "digits", "--batch-size", "0"],
         2, "batch_size must lie in [1, 1000000], got 0"),
        (["evaluate", "{run}/best.safetensors", "--data", "mnist"], 1, "unknown data set"),
        (["evaluate", "{tmp}/three.safetensors", "--data", "digits"], 1, "takes images of 3"),
        (["verify", "{tmp}/three.safetensors", "{run}/folded.safetensors", "--data", "digits"],
         1, "takes images of 3"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_line_and_leave_nothing(
    words: list[str],
    status: int,
    message: str,
    finished: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("")
    for folder in ("odd/summary.json", "a.png"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "gray.png")
    sf.save(sf.models.small(steps=2, width=0.1), tmp_path / "three.safetensors")
    before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
    words = [word.format(tmp=tmp_path, run=finished) for word in words]
    message = message.format(tmp=tmp_path, run=finished)
    assert main(words) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err
    if status == 1 or "must lie in" in message:
        last = captured.err.splitlines()[-1]
        assert last.startswith("spikefold: ")
        assert message in last
    assert {path: path.stat().st_mtime_ns for path in finished.iterdir()} == before


def test_recalibrate(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(tmp_path / "new.safetensors")
    words = ["recalibrate", str(finished / "best.safetensors"), "-o", new, "--data", "digits"]
    record = run_json(words, capsys)
    assert record["validation_before"]["samples"] == record["validation_after"]["samples"] == 143
    assert sf.load(new).transforms == ()
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err
    # a run that was trained on all samples
    shutil.copytree(finished, tmp_path / "all")
    settings = json.loads((tmp_path / "all" / "config.json").read_text())
    settings["data"]["validation"] = 0
    (tmp_path / "all" / "config.json").write_text(json.dumps(settings))
    words = ["recalibrate", str(tmp_path / "all"), "-o", str(tmp_path / "other.safetensors")]
    assert list(run_json(words, capsys)) == ["output"]


def test_recalibrate_gives_each_step_its_own(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.safetensors"
    words = ["recalibrate", str(finished), "--per-step", "--data", "digits", "-o", str(new)]
    run_json(words, capsys)
    network = sf.load(new)
    norm = network.features[0].lif.norm
    assert network.arguments.norm == "mpbn-steps"
    assert norm.running_mean.shape[0] == network.arguments.steps
    assert (norm.running_mean[0] != norm.running_mean[1]).any()
    # nothing to give: said before data are read, and nothing is written
    again = [words[0], str(new), *words[2:-1], str(tmp_path / "again.safetensors")]
    assert main(again) == 1
    assert "has no MPBN with one set for all steps" in capsys.readouterr().err
    assert not (tmp_path / "again.safetensors").exists()


def test_sweep_resumes_and_its_table_is_the_mean_over_seeds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = RECIPES["digits"]
    optimizer = dataclasses.replace(recipe.experiment.optimizer, epochs=1, batch_size=256)
    model = dataclasses.replace(recipe.experiment.model, options=Options(width=0.25, steps=1))
    experiment = dataclasses.replace(recipe.experiment, optimizer=optimizer, model=model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECIPES, "digits", dataclasses.replace(recipe, experiment=experiment))
        words = ["sweep", "digits", "--seeds", "0", "1", "--vary", "model.norm=mpbn,none"]
        words += ["--out", str(tmp_path / "sweep")]
        assert main([*words, "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert [(row["norm"], row["n"]) for row in rows] == [("mpbn", 2), ("none", 2)]
        assert rows[0]["fold"]["mismatches"] == 0 < rows[0]["fold"]["spikes"]
        summaries = sorted((tmp_path / "sweep").glob("**/summary.json"))
        assert len(summaries) == 4
        values = [
            json.loads(path.read_text())["test"]["trained"]["accuracy"]
            for path in summaries
            if "norm=none" in str(path)
        ]
        assert (rows[1]["seeds"], rows[1]["test"]["values"]) == ([0, 1], values)
        assert rows[1]["test"]["mean"] == pytest.approx(sum(values) / 2)
        assert rows[1]["test"]["deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        # a second call runs only what is missing; a run may be older than a setting
        whole = summaries[1].read_text()
        record = json.loads(whole)
        del record["experiment"]["data"]["sensor"]
        summaries[1].write_text(json.dumps(record))
        summaries[0].unlink()
        before = [path.stat().st_mtime_ns for path in summaries[1:]]
        assert main(words) == 0
        assert summaries[0].exists()
        assert [path.stat().st_mtime_ns for path in summaries[1:]] == before
        summaries[1].write_text(whole)
    assert main(["table", str(tmp_path / "sweep")]) == 0
    assert "| digits | digits | small | bn + none | 1 | 1 | 2 |" in capsys.readouterr().out
    assert run_json(["table", str(tmp_path / "sweep")], capsys) == rows
    assert main(["table", str(tmp_path / "sweep"), "--format", "csv"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    # a run of an older version, which did not have the setting yet, is one of its default
    record = json.loads(whole)
    del record["experiment"]["model"]["current_norm"]
    summaries[1].write_text(json.dumps(record))
    assert run_json(["table", str(tmp_path / "sweep")], capsys) == rows
    # one of another program is a row of its own
    record["experiment"]["model"]["leak"] = 1
    summaries[1].write_text(json.dumps(record))
    assert len(run_json(["table", str(tmp_path / "sweep")], capsys)) == len(rows) + 1


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["sweep"], 1, "at least one recipe"),
        (["sweep", "digit"], 1, "did you mean"),
        (["sweep", "digits", "--jobs", "0"], 1, "--jobs must be at least 1"),
        (["sweep", "digits", "--vary", "model.norm"], 1, "expected KEY=VALUE"),
        (["sweep", "digits", "--vary", "model.nrom=mpbn"], 2, "--model.norm"),
        (["sweep", "digits", "--vary", "model.norm=mpbn", "model.norm=none"], 1,
         "sweep: --vary model.norm is given twice"),
        (["sweep", "digits", "--vary", "model.learn-decay=no", "model.learn_decay=layer"], 1,
         "sweep: --vary model.learn-decay is given twice"),
        (["sweep", "digits", "--vary", "model.norm=mpbn,none,mpbn"], 1,
         "digits/model.norm=mpbn/seed-0 would hold two runs"),
        (["sweep", "digits", "--seeds", "3", "3"], 1, "default/seed-3 would hold two runs"),
        (["sweep", "digits", "--vary", "seed=3,4"], 1, "sweep: seeds are given by --seeds 3 4"),
        (["sweep", "digits", "digits"], 1, "sweep: two recipes are called 'digits'"),
        (["sweep", "digits", "{tmp}/digits.toml"], 1, "cannot be read"),
        (["table"], 1, "at least one directory"),
        (["table", "{tmp}"], 1, "no finished run"),
    ],
)  # fmt: skip
def test_mistakes_with_many_runs(
    words: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(tmp=tmp_path) for word in words]) == status
    assert message in capsys.readouterr().err


def test_what_is_true_or_false_is_varied() -> None:
    vary = "hardware.channels_last=true,False"
    runs = plan(SweepOptions(("digits",), (0,), (vary,), Path("out")))
    assert [run.experiment.hardware.channels_last for run in runs] == [True, False]
    vary = "model.standardize=false"
    (run,) = plan(SweepOptions(("cifar10-small",), (0,), (vary,), Path("out")))
    assert not run.experiment.model.options.standardize
    with pytest.raises(ConfigError, match=r"channels-last must be true or false, got 1"):
        plan(SweepOptions(("digits",), (0,), ("hardware.channels-last=1",), Path("out")))


def test_a_value_that_is_a_path_leads_nowhere_else() -> None:
    runs = plan(SweepOptions(("digits",), (0,), ("init=../../a/best.safetensors",), Path("out")))
    assert [run.directory for run in runs] == [
        Path("out/digits/init=.._.._a_best.safetensors/seed-0")
    ]
    assert runs[0].experiment.init == "../../a/best.safetensors"


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "spikefold.cli", "show", "digits"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
