"""Fields described once: what `help` shows of those who take them, against what is written out."""

import inspect
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import pytest

import spikefold as sf
from spikefold.described import described, takes, with_arguments
from spikefold.nn._neuron import Constants, NoDecay


@dataclass
class Base:
    """A base.

    Arguments:
        size: of the thing,
            in metres.

    Raises:
        ValueError: never.
    """

    size: int = 1


@dataclass
class Kind(Base):
    """More.

    Arguments:
        colour: its name: red.
    """

    colour: str = "red"


def test_fields_are_described_where_they_are_defined() -> None:
    assert described(Kind) == {"size": "of the thing, in metres.", "colour": "its name: red."}


def test_docstrings_without_arguments_get_them() -> None:
    assert with_arguments("Do it.", {"a": "one."}) == "Do it.\n\nArguments:\n    a: one."


def test_a_class_shows_the_fields_that_it_takes() -> None:
    @takes(Kind, "size")
    class Thing:
        """A thing.

        Arguments:
            weight: in kilograms.

        Example:
            >>> Thing(1.0)
        """

        def __init__(self, weight: float, **settings: Any) -> None:
            """Make it."""

    class Heavy(Thing):
        def __init__(self) -> None:
            """Make it."""

    assert str(inspect.signature(Thing)) == "(weight: float, *, colour: str = 'red') -> None"
    assert str(inspect.signature(Heavy)) == "() -> None"
    assert Thing.__doc__ == (
        "A thing.\n\nArguments:\n    weight: in kilograms.\n    colour: its name: red.\n\n"
        "Example:\n    >>> Thing(1.0)"
    )


@pytest.mark.parametrize("kind", [sf.LIF, sf.PLIF, sf.IF])
def test_neurons_show_all_constants(kind: type[sf.LIF]) -> None:
    left_out = {"decay"} if kind is sf.IF else set()
    constants = {field.name for field in fields(sf.Neuron)} - left_out
    shown = inspect.signature(kind).parameters
    assert constants == shown.keys() - {"norm", "channels"}
    for name in constants:
        assert shown[name].default == getattr(sf.Neuron(), name)
        assert f"\n    {name}: " in (kind.__doc__ or "")


def test_type_checkers_see_the_constants_that_there_are() -> None:
    hints = get_type_hints(sf.Neuron)
    assert get_type_hints(Constants) == hints
    assert get_type_hints(NoDecay) == {k: v for k, v in hints.items() if k != "decay"}
