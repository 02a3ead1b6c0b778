"""The batches that networks are run on, to compare them or to count."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spikefold.errors import ShapeError

Batch = Tensor | Sequence[Any]


def require_batches(batches: Any) -> None:
    """Refuse a batch in the place of batches: its samples would be taken for batches.

    Raises:
        ShapeError: with what would be right.
    """
    pair = isinstance(batches, tuple) and all(isinstance(part, Tensor) for part in batches)
    if isinstance(batches, Tensor) or pair:
        raise ShapeError("batches must be an iterable of batches: [x], or [(x, labels)]")


def inputs_and_labels(batch: Any) -> tuple[Tensor, Tensor | None]:
    """A batch's inputs and labels.

    Arguments:
        batch: a tensor, or a pair.

    Raises:
        ShapeError: if it is something else.
    """
    parts = (batch,) if isinstance(batch, Tensor) else batch
    if not isinstance(parts, tuple | list) or len(parts) not in (1, 2):
        kind = type(batch).__name__
        raise ShapeError(f"a batch is a tensor, or a pair of inputs and labels [N], got a {kind}")
    x, labels = parts[0], parts[1] if len(parts) == 2 else None
    if not isinstance(x, Tensor):
        raise ShapeError(f"inputs must be a tensor, got a {type(x).__name__}")
    try:
        return x, None if labels is None else torch.as_tensor(labels, device=x.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(f"labels must be whole numbers [N]: {error}") from error
