"""Things by name, and packages that add some."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import spikefold as sf
from spikefold import registry
from spikefold.cli import main
from spikefold.data import DATASETS, DatasetInfo, Parts, load_dataset
from spikefold.dynamics import SURROGATES
from spikefold.errors import ConfigError, DataError, FileFormatError
from spikefold.models import MODELS
from spikefold.plain import from_plain
from spikefold.recipes import RECIPES, Recipe, find_recipe
from spikefold.registry import Registry, import_extension
from spikefold.training import Experiment

LAB = """
from dataclasses import dataclass
import torch, spikefold as sf

@sf.models.register(sf.models.Arguments)
def lab_net(builder, width):
    return [builder.conv(4)]

@sf.dynamics.register_surrogate
@dataclass(frozen=True)
class Step(sf.dynamics.Rectangle):
    name = "lab-step"

def samples():
    return sf.data.TensorSamples(torch.rand(40, 1, 8, 8), torch.arange(40) % 2)

sf.data.register(sf.data.DatasetInfo(
    "lab-data", "noise", load=lambda root: sf.data.Parts(("a", "b"), samples, samples)))
sf.recipes.register(sf.recipes.Recipe("lab-recipe", "noise", sf.training.Experiment(
    sf.training.DataConfig("lab-data"), sf.training.ModelConfig("lab_net"))))
"""


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """What was registered and imported is gone after a test."""
    kinds: tuple[Registry, ...] = (MODELS, SURROGATES, DATASETS, RECIPES)
    before, imported, modules = [dict(kind) for kind in kinds], [*registry.IMPORTED], {*sys.modules}
    registry._import_installed.cache_clear()
    yield
    for kind, things in zip(kinds, before, strict=True):
        for name in kind.keys() - things.keys():
            del kind[name]
    registry.IMPORTED[:] = imported
    for name in sys.modules.keys() - modules:
        if "lab" in name:
            del sys.modules[name]
    registry._import_installed.cache_clear()


def install(place: Path, package: str, text: str) -> None:
    """An installed distribution whose entry point is a package of this text."""
    info = place / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[spikefold]\nany = {package}\n")
    (place / package).mkdir()
    (place / package / "__init__.py").write_text(text)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package `labpack` is installed."""
    install(tmp_path / "site", "labpack", LAB)
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_a_name_is_given_once() -> None:
    things: Registry[list[int]] = Registry("thing", DataError)
    one = things.add("one", [1])
    assert things.add("one", one) is things.find("one") is one
    with pytest.raises(DataError, match=r"^thing 'one' is already registered: choose another name"):
        things.add("one", [1])
    assert things["one"] is one


@pytest.mark.usefixtures("as_user")
def test_the_nearest_name_is_told_or_all() -> None:
    things: Registry[int] = Registry("thing")
    things |= {"first": 1, "second": 2}
    either = "one of first, second, or what a module registers that you import"
    for name, hint in (
        ("frist", "'frist': did you mean 'first'?"),
        ("x", f"'x': {either}"),
        (["first"], "['first']: one of first, second"),
        (None, "None: one of first, second"),
    ):
        with pytest.raises(ConfigError) as caught:
            things.find(name)
        assert str(caught.value).startswith(f"unknown thing {hint}")


@pytest.mark.parametrize(
    ("find", "name"),
    [
        (lambda: sf.models.build("lab_net", sf.models.Arguments(3)), "lab_net"),
        (lambda: load_dataset("lab-data").names == ("a", "b"), "lab-data"),
        (lambda: from_plain("lab-step", sf.Surrogate, "surrogate"), "lab-step"),
        (lambda: find_recipe("lab-recipe"), "lab-recipe"),
        (lambda: sf.training.ModelConfig("lab_net"), "lab_net"),
    ],
)
@pytest.mark.usefixtures("lab")
def test_an_installed_package_is_imported_for_an_unknown_name(find, name: str) -> None:  # type: ignore[no-untyped-def]
    sf.models.build("small", sf.models.Arguments())
    find_recipe("digits")
    assert "labpack" not in sys.modules
    assert find()
    assert "labpack" in sys.modules
    kinds: tuple[Registry, ...] = (MODELS, SURROGATES, DATASETS, RECIPES)
    assert sum(name in kind for kind in kinds) == 1


@pytest.mark.usefixtures("lab")
def test_options_may_name_what_an_installed_package_has(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--model.surrogate", "lab-step", "--model.name", "lab_net"]
    assert main(["show", "digits", *words, "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["experiment"]["model"]
    assert (model["surrogate"], model["name"]) == ("lab-step", "lab_net")


@pytest.mark.usefixtures("lab")
def test_a_network_file_never_imports_anything(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    import_extension("labpack")
    neuron = sf.Neuron(surrogate=SURROGATES["lab-step"]())
    sf.save(MODELS["lab_net"](2, in_channels=1, steps=2), path)
    sf.save(sf.models.small(steps=2, width=0.1, neuron=neuron), tmp_path / "step.safetensors")
    for kind, name in ((MODELS, "lab_net"), (SURROGATES, "lab-step")):
        del kind[name]  # type: ignore[attr-defined]
    del sys.modules["labpack"]
    for file, what in ((path, "model 'lab_net'"), (tmp_path / "step.safetensors", "surrogate")):
        with pytest.raises(FileFormatError, match=f"unknown {what}.*import the package") as e:
            sf.load(file)
        assert str(file) in str(e.value)
        assert "\n" not in str(e.value)
        assert "labpack" not in sys.modules
    for name in ("lab-data", "lab-recipe"):
        del (DATASETS if name in DATASETS else RECIPES)[name]
    find_recipe("lab-recipe")  # asked for by the user, not by a file
    assert sf.load(path)(torch.rand(1, 1, 8, 8)).shape == (1, 2)


def test_packages_that_cannot_be_imported_are_told_where_a_name_stays_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "site", "labpack", LAB)
    install(tmp_path / "site", "brokenlab", "import nowhere_at_all")
    install(tmp_path / "site", "leavinglab", "raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_recipe("lab-recipe").name == "lab-recipe"  # the others do not stand in its way
    with pytest.raises(ConfigError, match="unknown recipe 'lab-recip': did you mean") as caught:
        find_recipe("lab-recip")
    message = str(caught.value)
    assert (
        "the installed package brokenlab cannot be imported (brokenlab: ModuleNotFoundE" in message
    )
    assert "leavinglab: SystemExit: 3" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
        ("(", "SyntaxError: '(' was never closed"),
        ("raise SystemExit('usage')", "SystemExit: usage"),
        ("import spikefold as sf\nsf.recipes.register(sf.recipes.Recipe('digits', '', "
         "sf.training.Experiment()))", "recipe 'digits' is already registered"),
    ],
)  # fmt: skip
def test_an_import_that_fails_is_one_line(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wronglab.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        import_extension("wronglab")
    assert str(caught.value).startswith(f"cannot import wronglab: {message}")
    assert "\n" not in str(caught.value)
    assert "wronglab" not in registry.IMPORTED


def test_what_is_registered_is_found_everywhere() -> None:
    parts = Parts(("a",), lambda: None, lambda: None)  # type: ignore[arg-type, return-value]
    info = sf.data.register(DatasetInfo("lab-own", "mine", load=lambda root: parts))
    assert DATASETS["lab-own"] is info
    assert sf.data.register(info) is info
    assert info.find(None) == Path()
    recipe = sf.recipes.register(Recipe("lab-own", "mine", Experiment()))
    assert find_recipe("lab-own") is recipe
    with pytest.raises(DataError, match="data set 'digits' is already registered"):
        sf.data.register(DatasetInfo("digits", "mine", load=lambda root: parts))
    with pytest.raises(ConfigError, match="recipe 'lab-own' is already registered"):
        sf.recipes.register(Recipe("lab-own", "mine", Experiment(seed=1)))
    with pytest.raises(ConfigError, match="model 'small' is already registered"):

        @sf.models.register(sf.models.Arguments)
        def small(builder: sf.models.Builder, width: float) -> list[torch.nn.Module]:
            return [builder.conv(4)]
