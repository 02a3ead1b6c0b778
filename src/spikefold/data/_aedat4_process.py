"""Decodes AEDAT 4 files: takes their names from standard input, a JSON string a line.

A program of its own, which imports nothing of spikefold: a damaged file can abort the reader's
whole process. For each file it writes a line of JSON to standard output, with the sensor's width
and height and the number of bytes that follow, or an error; then the events as an npy array.
"""

import io
import json
import os
import sys

import numpy as np

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

BESIDE, EXPANSION = 4 << 30, 100  # bytes of address space: the interpreter's; for each of a file


def decoded(path: str) -> tuple[list[int], np.ndarray]:
    """Width, height, and events as the reader structures them."""
    import aedat

    decoder = aedat.Decoder(path)
    streams = [s for s in decoder.id_to_stream().values() if s["type"] == "events"]
    packets = [packet["events"] for packet in decoder if "events" in packet]
    if not streams or not packets:
        raise ValueError("no events in it")
    return [int(streams[0]["width"]), int(streams[0]["height"])], np.concatenate(packets)


def bound_memory(path: str) -> None:
    """Let a file of this size have what its events may need, and no bomb more (not on Windows).

    An event takes 13 bytes, its copies on the way 4 times that, and 2 to 4 in a compressed file.
    """
    if resource is not None:
        most = BESIDE + EXPANSION * os.path.getsize(path)
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main() -> None:
    """Answer each line of standard input."""
    for line in sys.stdin:
        try:
            path = json.loads(line)
            bound_memory(path)
            sensor, events = decoded(path)
        except BaseException as error:  # the reader's panics do not derive from Exception
            print(json.dumps({"error": str(error)}), flush=True)
            continue
        array = io.BytesIO()
        np.save(array, events)
        print(json.dumps({"sensor": sensor, "bytes": array.tell()}), flush=True)
        sys.stdout.buffer.write(array.getvalue())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
