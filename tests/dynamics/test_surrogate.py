"""Surrogates against finite differences of their own antiderivative and published values."""

import math
from dataclasses import dataclass

import pytest
import torch

import spikefold as sf
from spikefold import dynamics
from spikefold.dynamics import Atan, Form, Rectangle, Sigmoid, Surrogate, Tanh, Triangle
from spikefold.errors import ConfigError

ALL: list[Surrogate] = [
    Tanh(),
    Tanh(k=1.7),
    Rectangle(),
    Rectangle(width=0.4),
    Triangle(),
    Triangle(width=2.5),
    Sigmoid(),
    Sigmoid(alpha=1.3),
    Atan(),
    Atan(alpha=5.0),
]


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_derivative_is_the_finite_difference_of_the_antiderivative(surrogate: Surrogate) -> None:
    # points that keep away from the kinks, which lie at multiples of 0.1 here
    z = torch.arange(-3, 3, 0.1, dtype=torch.float64) + 0.05
    step = 1e-6
    difference = surrogate.antiderivative(z + step) - surrogate.antiderivative(z - step)
    torch.testing.assert_close(surrogate.derivative(z), difference / (2 * step))


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_antiderivative_is_a_step(surrogate: Surrogate) -> None:
    ends = surrogate.antiderivative(torch.tensor([-1e6, 0.0, 1e6], dtype=torch.float64))
    torch.testing.assert_close(
        ends, torch.tensor([0, 0.5, 1], dtype=torch.float64), atol=1e-5, rtol=0
    )


def test_published_values() -> None:
    # official code: w = h - threshold + 0.5, k (1 - tanh²(k (w - 0.5))) / (2 tanh(k / 2)), k = 3
    w = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.01, -0.01], dtype=torch.float64)
    expected = [
        3 * (1 - math.tanh(3 * (x - 0.5)) ** 2) / (2 * math.tanh(1.5)) if 0 <= x <= 1 else 0.0
        for x in w.tolist()
    ]
    assert Tanh().derivative(w - 0.5).tolist() == pytest.approx(expected)
    zero = torch.zeros(1, dtype=torch.float64)
    assert Rectangle(width=0.5).derivative(zero).item() == 2.0
    assert Triangle(width=0.5).derivative(zero).item() == 2.0
    assert Sigmoid(alpha=4.0).derivative(zero).item() == 1.0
    assert Atan(alpha=2.0).derivative(zero).item() == 1.0
    assert Atan(alpha=2.0).derivative(zero + 1 / math.pi).item() == pytest.approx(0.5)


@pytest.mark.parametrize("surrogate", ALL, ids=str)
def test_fire_takes_the_surrogate_backward_and_the_strict_step_forward(
    surrogate: Surrogate,
) -> None:
    h = torch.tensor([0.2, 0.5, 0.5000001, 0.9, math.nan], requires_grad=True)
    s = dynamics.fire(h, 0.5, surrogate)
    assert s.tolist() == [0, 0, 1, 1, 0]
    s[:4].sum().backward()
    assert h.grad is not None
    torch.testing.assert_close(h.grad[:4], surrogate.derivative(h.detach()[:4] - 0.5))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (Form("gauss", 1.0, 1.0), "unknown shape 'gauss': one of logistic, box"),
        (Form("box", math.nan, 1.0), "scale, height and window are not a form"),
        (Form("box", 1.0, 1.0, -1.0), "scale, height and window are not a form"),
    ],
)
def test_a_form_that_no_kernel_computes_is_refused(form: Form, message: str) -> None:
    @dataclass(frozen=True)
    class Own(Surrogate):
        name = "own"

        def form(self) -> Form:
            return form

    x = torch.rand(2, 3, 4, requires_grad=True)
    with pytest.raises(ConfigError, match=f"surrogate own: {message}"):
        sf.LIF(surrogate=Own())(x)
