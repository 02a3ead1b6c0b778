"""Shapes and types of all annotated functions are checked while the tests run."""

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import jaxtyping
import pytest
import torch
import torch.fx

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores, so do their processes
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton, which reads it then

jaxtyping.install_import_hook("spikefold", "beartype.beartype")  # a `with` would end it at once

trace = torch.fx.Tracer.trace


def trace_unchecked(*args: Any, **kwargs: Any) -> torch.fx.Graph:
    """What is followed by torch.fx is called with proxies, which are no tensors."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        return trace(*args, **kwargs)
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


torch.fx.Tracer.trace = trace_unchecked  # type: ignore[method-assign]

phases = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
# `as_user` is the same for all examples of a test
allowed = (hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow)
hypothesis.settings.register_profile(
    "default", deadline=None, print_blob=True, phases=phases, suppress_health_check=allowed
)
hypothesis.settings.load_profile("default")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def as_user() -> Iterator[None]:
    """No type checks at run time, as outside the tests: bad input meets spikefold's own errors."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
