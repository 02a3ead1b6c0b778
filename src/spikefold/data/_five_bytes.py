"""Events of 5 bytes: N-MNIST's and N-Caltech101's .bin files, and SLAYER's .bs2 files."""

import numpy as np

from spikefold.data._frames import EVENT
from spikefold.errors import DataError

OVERFLOW_ROW, OVERFLOW = 240, 2**13  # no pixel; µs


def read_nmnist(data: bytes, name: str) -> np.ndarray:
    """Events of a .bin file: as `read_bs2`, and row 240 marks an overflow of the camera's clock.

    Arguments:
        data: of the file.
        name: of the file, for messages.

    Raises:
        DataError: if the bytes are not a whole number of events.

    Source: Orchard et al. 2015, the function Read_Ndataset that comes with the data sets.
    """
    events = read_bs2(data, name)
    marks = events["y"] == OVERFLOW_ROW
    events["t"] += OVERFLOW * marks.cumsum()
    return events[~marks]


def read_bs2(data: bytes, name: str) -> np.ndarray:
    """Events of a .bs2 file, 40 bits each: x (8), y (8), polarity (1), microseconds (23).

    Arguments:
        data: of the file, the highest byte of a number first.
        name: of the file, for messages.

    Raises:
        DataError: if the bytes are not a whole number of events.

    Source: Shrestha and Orchard, "SLAYER: Spike Layer Error Reassignment in Time", 2018, the
    function read2Dspikes of its code.
    """
    if not data or len(data) % 5:
        raise DataError(f"{name}: {len(data)} bytes are not a whole number of 5-byte events")
    raw = np.frombuffer(data, np.uint8).reshape(-1, 5).astype(np.int64)
    events = np.empty(len(raw), dtype=EVENT)
    events["x"], events["y"] = raw[:, 0], raw[:, 1]
    events["p"] = raw[:, 2] >> 7
    events["t"] = ((raw[:, 2] & 127) << 16) | (raw[:, 3] << 8) | raw[:, 4]
    return events
