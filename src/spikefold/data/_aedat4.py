"""AEDAT 4, read in a process of its own, because a damaged file may crash the reader."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np

from spikefold.data._frames import structured
from spikefold.errors import DataError

PROGRAM = Path(__file__).with_name("_aedat4_process.py")


class Aedat4Reader:
    """Reads one file after another in one process.

    Arguments:
        process: runs `PROGRAM`.
    """

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def read(self, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
        """Events structured as `EVENT`, and the sensor's width and height.

        Raises:
            DataError: if the file is damaged or cut off, or holds no events.
        """
        requests, answers = self.process.stdin, self.process.stdout
        damaged = f"{path}: this AEDAT 4 file is damaged or cut off"
        assert requests is not None
        assert answers is not None
        try:
            requests.write(json.dumps(str(path)).encode() + b"\n")
            requests.flush()
            answer = json.loads(answers.readline())
            if "error" in answer:
                raise DataError(f"{damaged} ({answer['error']!a})")
            events = np.load(BytesIO(answers.read(answer["bytes"])), allow_pickle=False)
        except DataError:
            raise
        except (OSError, EOFError, ValueError) as error:
            raise DataError(f"{damaged}: its reader crashed") from error
        width, height = answer["sensor"]
        return structured(events), (width, height)


@contextmanager
def aedat4_reader() -> Iterator[Aedat4Reader]:
    """A reader while the context lasts.

    Raises:
        DataError: if the library that reads AEDAT 4 is not installed.
    """
    if find_spec("aedat") is None:
        raise DataError("AEDAT 4 needs a reader: pip install 'spikefold[events]'")
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a panic's message is of no use to the user
    )
    try:
        yield Aedat4Reader(process)
    finally:
        process.kill()
        process.communicate()
