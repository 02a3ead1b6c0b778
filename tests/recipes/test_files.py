"""Recipes as files: what is written comes back, is explained, and mistakes are named."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import spikefold as sf
from spikefold.data import Augmentation
from spikefold.errors import ConfigError
from spikefold.models import Options
from spikefold.plain import to_plain
from spikefold.recipes import RECIPES, find_recipe, read_recipe, to_toml
from spikefold.training import DataConfig, Experiment, HardwareConfig, ModelConfig, OptimizerConfig

# none of the defaults
OTHER = Experiment(
    DataConfig(
        "recordings", 'C:\\a "b" ü', 0.25, 3, 0.5, 17, "count", (640, 480),
        Augmentation(color_jitter=(0.1, 0.2, 0.3, 0.4), cutout=3),
    ),
    ModelConfig(
        "compact",
        Options(
            "mpbn-steps",
            current_norm="tab",
            rate=0.125,
            width=1e-05,
            steps=7,
            learn_decay="layer",
            standardize=True,
        ),
        sf.Neuron(0.75, 1e22, "soft", sf.Tanh(2.5), True),
    ),
    OptimizerConfig(7, 3, "adamw", 1e-3, "constant", 0.8, 0.95, 0.01, 2, 0.1, 2, 1.5, 0.9),
    HardwareConfig("cuda", 2, 2, "bf16", False, True),
    7,
    "base.safetensors",
)  # fmt: skip


@pytest.mark.parametrize("name", [*RECIPES, "other"])
def test_what_is_written_comes_back(name: str, tmp_path: Path) -> None:
    recipe = RECIPES["digits"] if name == "other" else RECIPES[name]
    if name == "other":
        recipe = replace(recipe, experiment=OTHER, summary='of "all" \\ kinds')
    path = tmp_path / "mine.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert find_recipe(str(path)) == replace(recipe, name="mine", measured="not yet run")


def test_every_setting_stands_there_with_its_meaning() -> None:
    lines = to_toml(RECIPES["digits"]).splitlines()
    assert "measured there: 99.4 % of 359 test images" in " ".join(lines[:3])
    plain = to_plain(RECIPES["digits"].experiment)
    sections = [plain, *(v for v in plain.values() if isinstance(v, dict))]
    for name in (name for section in sections for name in section):
        place = next(n for n, line in enumerate(lines) if is_of(line, name))
        explained = lines[place if lines[place][0] == "[" else place - 1]
        assert len(explained.partition("#")[2]) > 3, name
    place = lines.index("auto_augment = false")
    assert lines[place - 1] == "# AutoAugment's policy for CIFAR-10, on colour images"


def is_of(line: str, name: str) -> bool:
    return line.removeprefix("# ").startswith((f"{name} =", f"[{name}]", f"[data.{name}]"))


def test_what_is_left_out_has_its_default(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text('data.name = "cifar10"\nmodel.name = "resnet20"\nmodel.steps = 2\n')
    recipe = read_recipe(path)
    assert recipe.experiment == Experiment(
        DataConfig("cifar10"), ModelConfig("resnet20", Options(steps=2))
    )
    assert recipe.name == "short"


def test_a_run_is_a_recipe(tmp_path: Path) -> None:
    for recipe, name in (("digits", "digits"), (None, "old")):
        directory = tmp_path / "old"
        directory.mkdir(exist_ok=True)
        OTHER.save(directory / "config.json", recipe)
        for path in (directory, directory / "config.json"):
            assert read_recipe(path).experiment == OTHER
            assert read_recipe(path).name == name
    assert Experiment.load(directory / "config.json") == OTHER
    OTHER.save(tmp_path / "free.json", "digits")
    assert Experiment.load(tmp_path / "free.json") == OTHER


GOOD = '[data]\nname = "digits"\n[model]\nname = "small"\n'


@pytest.mark.usefixtures("as_user")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "widht = 0.5", "unknown setting 'widht': did you mean 'width'? @ settings.model"),
        (GOOD + "xyz = 0.5", "unknown setting 'xyz': one of name, norm, .* @ settings.model"),
        (GOOD + "[optimiser]\nepochs = 3", "'optimiser': did you mean 'optimizer'? @ settings"),
        ("sed = 1\n" + GOOD, "unknown setting 'sed': did you mean 'seed'? @ settings"),
        (GOOD + 'width = "wide"', "expected a value of type float, got 'wide' @ settings.model.wi"),
        (GOOD + "steps = 2.5", "expected a value of type int, got 2.5 @ settings.model.steps"),
        (GOOD + "steps = 1979-05-27", "type int, got datetime.date"),
        (GOOD + "steps = 0", "model: steps must lie in [[]1, 10000[]], got 0 @ settings.model"),
        (GOOD + 'norm = "bn"', "expected one of mpbn, .* got 'bn' @ settings.model.norm"),
        ('model.name = "resnet21"\ndata.name = "digits"', "unknown model 'resnet21': did you"),
        (GOOD + "[data.augmentation]\ncutout = true", "int, got True @ settings.data.augm"),
        ('data.sensor = [1]\ndata.name = "a"\nmodel.name = "small"', "settings.data.sensor"),
        ('data.sensor = [1, "b"]\ndata.name = "a"\nmodel.name = "small"', "settings.data.sensor"),
        ('data = "digits"\nmodel.name = "small"', "expected names with values, got 'digits'"),
        ('summary = 3\n' + GOOD, "expected a value of type str, got 3 @ summary"),
        ('recipe = "../x"\n' + GOOD, "recipe: expected a name, got '../x'"),
        ('recipe = ".."\n' + GOOD, "recipe: expected a name, got '..'"),
        ('recipe = ""\n' + GOOD, "recipe: expected a name, got ''"),
        ('[model]\nname = "small"', "data.name is missing"),
        ('[data]\nname = "digits"\n[model]\nsteps = 2', "model.name is missing"),
        ("", "data.name is missing"),
        (GOOD + "steps =\n", "no TOML: .*line 5"),
        (GOOD + 'name = "small"', "no TOML: Cannot overwrite a value"),
        ("\x00", "no TOML"),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_file_and_setting(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^{path}: .*{message.replace('?', '[?]')}") as caught:
        find_recipe(str(path))
    assert "\n" not in str(caught.value)


def test_what_is_no_recipe_at_all(tmp_path: Path) -> None:
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "half.json").write_text('{"data"')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for name, message in (
        ("binary.toml", "no TOML"),
        ("list.json", r"expected names with values, got \[1\]"),
        ("half.json", "no JSON: Expecting"),
        ("deep.json", "no JSON"),
        ("none.toml", "No such file"),
        ("", "config.json: cannot be read: No such file"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            find_recipe(str(tmp_path / name))
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_old_runs_are_read_as_toml_too(tmp_path: Path) -> None:
    """Both kinds have the same names."""
    plain = tomllib.loads(to_toml(replace(RECIPES["digits"], experiment=OTHER)))
    assert plain.pop("summary")
    assert plain == json.loads(json.dumps(to_plain(OTHER)))
