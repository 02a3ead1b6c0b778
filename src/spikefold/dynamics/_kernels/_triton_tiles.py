"""How the host cuts a problem into tiles and launches a program for each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikefold.dynamics._kernels._problem import Problem


@dataclass(frozen=True)
class Blocks:
    """Sizes that decide about speed only; powers of two.

    Attributes:
        tile: elements a program handles, 8 a thread: enough loads in flight, and no register is
            spilled.
        whole: elements up to which one program takes all of a group's samples, so that batch
            statistics need no other program: all steps are one launch.
        width: groups side by side in a column tile: 128 bytes in a row of float32.
        scratch: bytes that should stay in the L2 cache (50 MB on an H100). A layer that needs more
            is done some groups after the others.
    """

    tile: int = 4096
    whole: int = 8192
    width: int = 32
    scratch: int = 32 << 20


blocks = Blocks()

# Triton contracts a product and a sum to one rounding unless told otherwise: spikes would differ.
_OPTIONS = {"enable_fp_fusion": False}
_MERGED = {"SLOTS": 128, "GROUPS": 8}  # the tile of the small kernels that merge partial results


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


@dataclass(frozen=True)
class Tiling:
    """A problem cut into tiles `[elements, width]`; see `_triton_equations.place`."""

    problem: Problem
    elements: int
    width: int

    @classmethod
    def of(cls, problem: Problem) -> "Tiling":
        width = min(blocks.width, _power_of_two(problem.groups)) if problem.inner == 1 else 1
        samples = _power_of_two(problem.rows * problem.inner)
        fits = samples * width <= blocks.whole
        most = blocks.whole if problem.potential.batch and fits else blocks.tile
        return cls(problem, min(samples, max(1, most // width)), width)

    @property
    def samples(self) -> int:
        return self.problem.rows * self.problem.inner

    @property
    def slots(self) -> int:
        """Tiles that share a group."""
        return math.ceil(self.samples / self.elements)

    @property
    def together(self) -> bool:
        """Whether a program can do all steps without hearing of others."""
        return not self.problem.potential.batch or self.slots == 1

    def launches(self, held: int) -> Iterator["Launch"]:
        """All groups, or some after the others if scratch would not stay in the cache.

        Arguments:
            held: numbers held for each element of a step.
        """
        groups = self.problem.groups
        fitting = blocks.scratch // (4 * self.samples * held) if held else groups
        count = max(1, fitting // self.width) * self.width
        for first in range(0, groups, count):
            yield Launch(self, first, min(count, groups - first))


@dataclass(frozen=True)
class Launch:
    """Launches over the tiles of the groups from `first` on, `count` of them."""

    tiling: Tiling
    first: int
    count: int

    @property
    def programs(self) -> int:
        return self.tiling.slots * math.ceil(self.count / self.tiling.width)

    def scratch(self, held: int) -> Tensor:
        """`held` numbers for each element of a step, tile after tile."""
        size = self.programs * self.tiling.elements * self.tiling.width
        return self._floats(held, size)

    def partials(self, numbers: int = 2) -> Tensor:
        """Some numbers of each tile's groups."""
        return self._floats(numbers, self.tiling.slots, self.count)

    def means(self) -> Tensor:
        """Two numbers of each group."""
        return self._floats(2, self.count)

    def _floats(self, *shape: int) -> Tensor:
        return self.tiling.problem.input.new_empty(shape, dtype=torch.float32)

    def run(self, kernel: Any, **arguments: Any) -> None:
        """A program for each tile."""
        tiling = self.tiling
        kernel[(self.programs,)](
            samples=tiling.samples,
            groups=tiling.problem.groups,
            first=self.first,
            count=self.count,
            INNER=tiling.problem.inner,
            ELEMENTS=tiling.elements,
            GROUPS=tiling.width,
            num_warps=min(32, max(1, tiling.elements * tiling.width // 256)),
            **_OPTIONS,
            **arguments,
        )

    def run_merging(self, kernel: Any, partials: Tensor, samples: int, **arguments: Any) -> None:
        """A program for some groups, over all their tiles."""
        kernel[(math.ceil(self.count / _MERGED["GROUPS"]),)](
            partials=partials,
            partials_step=partials.stride(0),
            slots=self.tiling.slots,
            samples=samples,
            first=self.first,
            count=self.count,
            **_MERGED,
            **_OPTIONS,
            **arguments,
        )
