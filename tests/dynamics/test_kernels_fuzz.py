"""Wrong arguments to the operators: refused by name or computed right, never a crash."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import spikefold as sf
from spikefold.dynamics._kernels._arguments import Arguments
from spikefold.errors import ConfigError, ShapeError
from tests.dynamics.fuzzing import BACKWARD, LAYER

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("kernels_only", "as_user")


@pytest.mark.parametrize("seed", [0, 1])
def test_the_operators_survive_anything(seed: int) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "tests.dynamics.fuzzing", str(seed), "12"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert found.returncode == 0, found.stderr[-3000:]
    counts = dict(part.split(": ") for part in found.stdout.strip().split("  "))
    kinds = ("right", "computed", "refused", "backward", "refused backward")
    assert all(int(counts[kind]) > 20 for kind in kinds), counts


ONE = torch.ones(1, 4)
FITS = {"input": torch.ones(3, 2, 4, 5), "steps": 3, "decay": 0.25, "threshold": 0.5}
FITS |= {"reset": "hard", "detach_reset": False}
FITS |= {"shape": "logistic", "scale": 6.0, "height": 3.0, "window": 0.5}
WRONG = [
    ({"steps": 2000}, ShapeError, "3 time steps"),
    ({"steps": 0}, ShapeError, "no time step"),
    ({"input": torch.ones(3, 4)}, ShapeError, "missing"),
    ({"input": torch.ones(3, 2, 4, 5).double()}, ConfigError, "inputs are torch.float64"),
    ({"shortcut": torch.ones(3, 2, 4, 1)}, ShapeError, "shortcut of shape"),
    ({"shortcut": torch.ones(3, 2, 4, 5).half()}, ConfigError, "shortcut is torch.float16"),
    ({"v": torch.ones(2, 4)}, ShapeError, "state of shape"),
    ({"v": torch.ones(2, 4, 5).double()}, ConfigError, "potentials are torch.float64"),
    ({"thresholds": torch.ones(1, 3)}, ShapeError, r"parameters of shape \[3\]"),
    ({"thresholds": torch.ones(())}, ShapeError, "parameters of shape"),
    ({"thresholds": torch.ones(1)}, ConfigError, "0 dimensions"),
    ({"thresholds": torch.ones(2, 4)}, ShapeError, "2 time steps, but the sequence has 3"),
    ({"decays": torch.ones(3)}, ShapeError, r"decay of shape \[3\]"),
    ({"decays": torch.ones(4).double()}, ConfigError, "potentials are torch.float64"),
    ({"thresholds": ONE.to("meta")}, ConfigError, "cpu and on meta"),
    ({"thresholds": ONE, "eps": 0.1}, ConfigError, "not both"),
    ({"gain": ONE}, ConfigError, "needs thresholds"),
    ({"gain": ONE, "shift": ONE}, ConfigError, "needs eps"),
    ({"eps": 0.1, "gain": ONE, "mean": ONE}, ConfigError, "go together"),
    ({"eps": 0.1, "gain": ONE, "shift": torch.ones(1, 4, 5)}, ShapeError, r"\[\[4\], \[4, 5\]\]"),
    ({"eps": 0.1, "input": torch.ones(3, 1, 4), "gain": ONE}, ShapeError, "larger batch"),
    ({"current_gain": ONE}, ConfigError, "needs current_eps"),
    ({"current_eps": 0.1, "current_gain": torch.ones(1, 5)}, ShapeError, r"of \[5\] channels"),
    ({"reset": "none"}, ConfigError, "reset must be"),
    ({"decay": 2.0}, ConfigError, r"decay must lie in \[0, 1\]"),
    ({"threshold": float("nan")}, ConfigError, "threshold be finite"),
    ({"scale": float("nan")}, ConfigError, "are not a form"),
    ({"shape": "tanh"}, ConfigError, "unknown shape 'tanh'"),
    (
        {"current_eps": 0.1, "current_gain": torch.ones(3, 4)},
        ConfigError,
        "over all steps, but a gain for each",
    ),
]


@pytest.mark.parametrize(("wrong", "kind", "message"), WRONG)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_wrong_arguments_are_named(wrong: dict, kind: type, message: str, device: str) -> None:
    """By the kernel, and by the fake that stands for it while something is traced."""
    given = dict.fromkeys(Arguments._fields) | FITS | wrong
    if device == "meta":
        if "meta" in message:
            pytest.skip("all of it lies on meta")
        given = {k: v.to("meta") if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    with pytest.raises(kind, match=message):
        LAYER(*given.values())


@pytest.mark.parametrize(
    ("place", "wrong", "message"),
    [
        (0, torch.ones(3, 2, 4, 4), "grad_spikes of shape"),
        (0, torch.ones(3, 2, 4, 5, dtype=torch.int64), "grad_spikes must be a dense tensor of flo"),
        (1, torch.ones(3, 2, 4, 5), "grad_v of shape"),
        (2, torch.ones(2, 4), "current of shape"),
        (2, None, "current is None"),
        (3, torch.ones(2, 3, 5), r"potential of shape \[2, 3, 5\], expected \[2, 3, 4\]"),
        (3, torch.ones(2, 3, 4).double(), "statistics must be float32"),
        (4, [True], "needed has 8 entries"),
    ],
)
def test_wrong_gradients_are_named(place: int, wrong: object, message: str) -> None:
    given = dict.fromkeys(Arguments._fields) | FITS | {"eps": 0.1, "gain": ONE, "shift": ONE}
    spikes, v, current, potential = LAYER(*given.values())
    first = [spikes, v, current, potential, [True] * 8]
    assert len(BACKWARD(*first, *given.values())) == 8
    first[place] = wrong
    with pytest.raises((ConfigError, ShapeError), match=message):
        BACKWARD(*first, *given.values())


def test_statistics_in_any_layout_give_the_same_gradients() -> None:
    given = dict.fromkeys(Arguments._fields) | FITS | {"eps": 0.1, "gain": ONE, "shift": ONE}
    given["input"] = torch.randn(3, 2, 4, 5)
    spikes, v, current, potential = LAYER(*given.values())
    apart = torch.stack([potential, potential], -1)[..., 0]
    found = [
        BACKWARD(spikes, v, current, p, [True] * 8, *given.values()) for p in (potential, apart)
    ]
    assert all(map(torch.equal, *found))


def test_a_state_of_half_precision_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"potentials are torch\.bfloat16"), sf.backend("fused"):
        sf.LIF().step(torch.ones(2, 4), sf.State(torch.ones(2, 4, dtype=torch.bfloat16), 1))
