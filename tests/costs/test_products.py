"""Products of a value and a weight, against loops over every output, tap and channel."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikefold.costs import products


def before(connection: Any, size: tuple[int, ...]) -> list[int]:
    """Padding before the first value, along each dimension."""
    if connection.padding == "same":
        spans = zip(connection.dilation, connection.kernel_size, strict=True)
        return [dilation * (kernel - 1) // 2 for dilation, kernel in spans]
    return [0] * len(size) if connection.padding == "valid" else list(connection.padding)


def brute(connection: Any, held: Tensor, used: Tensor, output: tuple[int, ...]) -> int:
    """Every output of a convolution looks at every tap: whether it lies inside of the image."""
    size, pad = tuple(held.shape[1:]), before(connection, tuple(held.shape[1:]))
    ins, outs = connection.in_channels, connection.out_channels
    ins_a_group, outs_a_group = ins // connection.groups, outs // connection.groups
    taps = itertools.product(*map(range, connection.kernel_size))
    positions = list(itertools.product(*map(range, size if connection.transposed else output)))
    total = 0
    for tap, position in itertools.product(taps, positions):
        other = tuple(
            o * stride + k * dilation - p
            for o, stride, k, dilation, p in zip(
                position, connection.stride, tap, connection.dilation, pad, strict=True
            )
        )
        if connection.padding_mode == "circular":
            other = tuple(i % n for i, n in zip(other, size, strict=True))
        bounds = output if connection.transposed else size
        if not all(0 <= i < n for i, n in zip(other, bounds, strict=True)):
            continue
        place = position if connection.transposed else other
        for c, k in itertools.product(range(ins), range(outs)):
            if c // ins_a_group != k // outs_a_group:
                continue
            entry = (c, k % outs_a_group) if connection.transposed else (k, c % ins_a_group)
            total += int(held[(c, *place)]) * int(used[(*entry, *tap)])
    return total


CONVOLUTIONS = {
    "plain": (nn.Conv2d(2, 3, 3), (5, 6)),
    "padded": (nn.Conv2d(2, 3, 3, padding=1), (5, 6)),
    "padded beyond the kernel": (nn.Conv2d(2, 3, 2, padding=3), (3, 2)),
    "strided": (nn.Conv2d(2, 3, 3, stride=2, padding=1), (5, 6)),
    "uneven": (nn.Conv2d(2, 3, (1, 4), stride=(3, 2), padding=(0, 2), dilation=(1, 2)), (7, 8)),
    "dilated": (nn.Conv2d(2, 2, 3, dilation=2, padding=2), (6, 5)),
    "groups": (nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 4)),
    "a channel each": (nn.Conv2d(3, 6, 3, groups=3), (4, 5)),
    "same": (nn.Conv2d(2, 2, 4, padding="same"), (5, 6)),
    "valid": (nn.Conv2d(2, 2, 2, padding="valid"), (3, 3)),
    "circular": (nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), (4, 4)),
    "one dimension": (nn.Conv1d(3, 2, 5, stride=2, padding=2), (11,)),
    "three dimensions": (nn.Conv3d(1, 2, 2, stride=2, padding=1), (3, 4, 3)),
    "transposed": (nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1), (3, 4)),
    "transposed, groups": (
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=2, output_padding=1, groups=2),
        (3, 3),
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of torch, that it is slow
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_by_loops(name: str) -> None:
    connection, size = CONVOLUTIONS[name]
    held = torch.randint(0, 5, (connection.in_channels, *size)).double()
    used = torch.rand(connection.weight.shape) < 0.6
    output = tuple(connection(held[None].float()).shape[2:])
    assert products(connection, held, used) == brute(connection, held, used, output)
    ones, full = torch.ones_like(held), torch.ones_like(used)
    assert products(connection, ones, full) == brute(connection, ones, full, output)


def test_linear_by_loops() -> None:
    connection = nn.Linear(5, 3)
    held, used = torch.randint(0, 9, (5,)).double(), torch.rand(3, 5) < 0.6
    expected = sum(int(held[c]) * int(used[k, c]) for k in range(3) for c in range(5))
    assert products(connection, held, used) == expected > 0


def test_large_numbers_stay_exact() -> None:
    held = torch.full((3,), 2.0**40 + 1, dtype=torch.float64)
    assert products(nn.Linear(3, 2), held, torch.ones(2, 3, dtype=torch.bool)) == 6 * (2**40 + 1)
