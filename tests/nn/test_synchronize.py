"""Statistics over two processes: equal to one with the whole batch, and how often they speak."""

import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, nn

import spikefold as sf
from spikefold import dynamics
from spikefold.nn import synchronize_statistics
from tests.nn.current_norms import NORMS

STEPS, SIZES = 4, (3, 5)


def layers() -> dict[str, nn.Module]:
    """Every kind of norm of the currents and of the potential; float64, so that no spike flips."""
    torch.manual_seed(0)

    def unit(norm: nn.Module, membrane: sf.MPBN | None) -> nn.Module:
        return sf.SpikingLayer(nn.Conv2d(3, 6, 3), norm, sf.LIF(membrane)).double()

    return {
        "batch norm": unit(nn.BatchNorm2d(6), sf.MPBN(6)),
        "no membrane norm": unit(nn.BatchNorm2d(6), None),
        "float32": unit(nn.BatchNorm2d(6), None).float(),
        "no norm of currents": unit(nn.Identity(), sf.MPBN(6, steps=STEPS)),
        "elements": unit(nn.BatchNorm2d(6), sf.MPBN((6, 3, 3))),
        "alone": sf.OverTime(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)).double(),
        **{kind: unit(norm(6, STEPS), sf.MPBN(6)) for kind, norm in NORMS.items()},
    }


def ran(layer: nn.Module, x: torch.Tensor, weights: torch.Tensor) -> dict[str, Any]:
    """What a layer gives, its gradients and statistics; how often processes met."""
    met: list[int] = []
    reduce = distributed.all_reduce

    def noticed(total: torch.Tensor, group: Any) -> None:
        met.append(total.numel())
        reduce(total, group=group)

    fused = x.dtype == torch.float32 and dynamics.missing_kernels("cpu") is None
    backend = sf.backend("fused") if fused else nullcontext()
    with pytest.MonkeyPatch.context() as patch, backend:
        patch.setattr(distributed, "all_reduce", noticed)
        spikes = layer(x)
        forward = len(met)
        (spikes * weights).sum().backward()
    return {
        "spikes": spikes.detach(),
        "grads": [p.grad for p in layer.parameters()],
        "buffers": list(layer.buffers()),
        "forward": forward,
        "backward": len(met) - forward,
    }


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    samples = (STEPS, sum(SIZES))
    x = torch.randn(*samples, 3, 5, 5, dtype=torch.float64, generator=generator)
    return x, torch.randn(*samples, 6, 3, 3, dtype=torch.float64, generator=generator)


def typed(layer: nn.Module, tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    return [tensor.to(next(layer.parameters()).dtype) for tensor in tensors]


def process(rank: int, directory: Path) -> None:
    """One of two, which has its part of the batch."""
    store = f"file://{directory / 'store'}"
    distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    mine = [part.split(SIZES, 1)[rank] for part in batch()]
    found = {
        name: ran(synchronize_statistics(layer), *typed(layer, mine))
        for name, layer in layers().items()
    }
    torch.save(found, directory / f"{rank}.pt")
    distributed.destroy_process_group()


def test_unequal_parts_are_one_batch_and_counted_once_a_call(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from tests.nn.test_synchronize import process; "
    code += "process(int(sys.argv[1]), Path(sys.argv[2]))"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(rank), str(tmp_path)],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(timeout=900) for process in started] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for name, layer in layers().items():
        whole = ran(layer, *typed(layer, batch()))
        one, other = (part[name] for part in parts)
        torch.testing.assert_close(torch.cat([one["spikes"], other["spikes"]], 1), whole["spikes"])
        for a, b, expected in zip(one["grads"], other["grads"], whole["grads"], strict=True):
            torch.testing.assert_close(a + b, expected, msg=name)
        for part in (one, other):
            torch.testing.assert_close(part["buffers"], whole["buffers"], msg=name)
        # a mean and a variance: of the currents at once, of the potentials at each step
        sums = 2 * (name != "no norm of currents")
        sums += 2 * STEPS * (name not in ("alone", "no membrane norm", "float32"))
        for part in (one, other):
            assert (part["forward"], part["backward"]) == (1 + sums, sums), name
        assert whole["forward"] == 0
