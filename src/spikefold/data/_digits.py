"""scikit-learn's handwritten digits: 1,797 real images of 8x8, shipped inside the package."""

import importlib.util
from pathlib import Path

import torch

from spikefold.data._samples import TensorSamples
from spikefold.data._splits import Parts, held_out
from spikefold.errors import DataError

NAMES = tuple("0123456789")


def find_digits(root: Path | None) -> Path | None:
    """scikit-learn's folder, if it is installed; `root` is not needed."""
    found = importlib.util.find_spec("sklearn")
    return Path(found.origin).parent if found and found.origin else None


def digits(root: Path | None) -> Parts:
    """Images `[N, 1, 8, 8]` in [0, 1], for training (1,438) and for test (359).

    The test set is a random fifth of each class, fixed by seed 0.

    Raises:
        DataError: if a folder is named.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (test part).
    """
    if root is not None:
        raise DataError(f"the digits come with scikit-learn and lie in no folder: leave out {root}")
    return Parts(NAMES, *held_out(_read, NAMES, fraction=0.2))


def _read() -> TensorSamples:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "the digits come with scikit-learn: pip install 'spikefold[demo]'"
        ) from error
    bunch = load_digits()
    images = torch.from_numpy(bunch.images).float().div(16).unsqueeze(1)
    return TensorSamples(images, torch.from_numpy(bunch.target).long())
