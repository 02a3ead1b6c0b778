"""Prophesee's recordings: EVT 2, EVT 3 and .dat, decoded from their bytes.

Not by expelliarmus: it adds to EVT 3's times 4,096 µs for each fall of their lower half, which the
upper half counts as well (its sample of 8.8 ms becomes one of 53.9 ms), leaves out the rest of a
file that ends within an event, and never returns from a header that is cut off.
"""

import re
from collections.abc import Callable

import numpy as np

from spikefold.data._frames import EVENT
from spikefold.errors import DataError

Words = np.ndarray  # int64, a word of the stream each
DAT_TYPES, DAT_SIZE = (0, 12), 8


def read_prophesee(data: bytes, encoding: str, name: str) -> np.ndarray:
    """Events structured as `EVENT`, in the file's order.

    What comes before the first word that tells the time has no time and is left out.

    Arguments:
        data: of the file: lines that begin with "% ", then the events.
        encoding: "evt2", "evt3" or "dat".
        name: of the file, the subject of messages.

    Raises:
        DataError: if the file is cut off in its header or within a word, or holds words that no
            such file has.

    Source: Prophesee, "EVT 2.0 Format", "EVT 3.0 Format", "DAT File Format", docs.prophesee.ai.
    """
    word, decode = FORMATS[encoding]
    body = data[_header_length(data, name) :]
    if encoding == "dat":
        if len(body) < 2 or body[0] not in DAT_TYPES or body[1] != DAT_SIZE:
            raise DataError(f"{name} has events of type and size {list(body[:2])}, not [12, 8]")
        body = body[2:]
    rest = len(body) % word.itemsize
    if rest:
        raise DataError(f"{name} is cut off: {rest} of {word.itemsize} bytes at its end")
    return decode(np.frombuffer(body, word).astype(np.int64), name)


def stated_sensor(data: bytes) -> tuple[int, int] | None:
    """Width and height by a header, in the forms of several years; None if it does not say.

    Arguments:
        data: of the file.

    Source: Prophesee, "RAW File Format" and "DAT File Format", docs.prophesee.ai.
    """
    geometry = re.search(rb"^% geometry (\d+)x(\d+)", data, re.MULTILINE)
    if geometry:
        return int(geometry[1]), int(geometry[2])
    sides = [
        re.search(rb"^% (?:format .*;)?" + side + rb"[ =](\d+)", data, re.MULTILINE | re.IGNORECASE)
        for side in (b"width", b"height")
    ]
    return (int(sides[0][1]), int(sides[1][1])) if sides[0] and sides[1] else None


def _header_length(data: bytes, name: str) -> int:
    """Bytes of the lines that begin with "% ", up to "% end" if there is such a line."""
    start, line = 0, b""
    while data.startswith(b"% ", start) and line != b"% end":
        end = data.find(b"\n", start)
        if end < 0:
            raise DataError(f"{name} is cut off in its header")
        line, start = data[start:end].strip(), end + 1
    return start


def _dat(words: Words, name: str) -> np.ndarray:
    """Words of t (32), x (14), y (14) and polarity (4), from the lowest bit on."""
    x, y, p = (words >> 32) & 0x3FFF, (words >> 46) & 0x3FFF, (words >> 60) & 0xF
    return _events(x, y, _unrolled(words & 0xFFFFFFFF, 32), p)


def _evt2(words: Words, name: str) -> np.ndarray:
    """Words of a type (4): 0 and 1, events with t (6), x (11), y (11); 8, the upper bits of t."""
    kind = words >> 28
    _require_known(kind, (0, 1, 8, 10, 14, 15), name)
    high = _latest(kind == 8, words & 0xFFFFFFF, bits=28)
    words, p, high = (array[(kind <= 1) & (high >= 0)] for array in (words, kind, high))
    t = (high << 6) | ((words >> 22) & 0x3F)
    return _events((words >> 11) & 0x7FF, words & 0x7FF, t, p)


def _evt3(words: Words, name: str) -> np.ndarray:
    """Words of a type (4) that change a state, or that make events of it.

    0: y (11). 8 and 6: upper and lower bits of t (12 each). 2: an event with polarity (1), x (11).
    3: polarity and x of the first pixel of the vectors that follow. 4 and 5: a vector of the next
    12 or 8 pixels, a bit each.
    """
    kind, content = words >> 12, words & 0xFFF
    _require_known(kind, (0, 2, 3, 4, 5, 6, 7, 8, 10, 14, 15), name)
    high = _latest(kind == 8, content, bits=12)
    t = (high << 12) | _latest(kind == 6, content).clip(min=0)
    y = _latest(kind == 0, content & 0x7FF)
    start = np.where(kind == 2, content, _latest(kind == 3, content))
    width = np.select([kind == 4, kind == 5], [12, 8], 0)
    passed = width.cumsum() - width
    passed = np.where(kind == 2, 0, passed - _latest(kind == 3, passed))
    pixels = np.select([kind == 2, kind == 4, kind == 5], [1, content, content & 0xFF], 0)
    pixels[(high < 0) | (y < 0) | (start < 0)] = 0
    bits = np.unpackbits(pixels.astype("<u2").view(np.uint8).reshape(-1, 2), 1, bitorder="little")
    place, pixel = np.nonzero(bits)
    x = (start & 0x7FF)[place] + passed[place] + pixel
    return _events(x, y[place], t[place], start[place] >> 11)


def _latest(chosen: np.ndarray, values: Words, bits: int | None = None) -> Words:
    """At each word the value of the last chosen one; -1 before the first.

    Arguments:
        chosen: which words tell the value.
        values: of all words.
        bits: if given, of a counter that begins again at 0 after its last value, and here does not.
    """
    told = values[chosen] if bits is None else _unrolled(values[chosen], bits)
    return np.append(told, -1)[chosen.cumsum() - 1]


def _unrolled(counter: Words, bits: int) -> Words:
    """A counter without overflows, which are where it falls by more than half."""
    falls = np.diff(counter, prepend=counter[:1]) < -(1 << (bits - 1))
    return counter + (falls.cumsum() << bits)


def _require_known(kind: Words, known: tuple[int, ...], name: str) -> None:
    strange = ~np.isin(kind, known)
    if strange.any():
        place = int(strange.argmax())
        raise DataError(f"{name} is damaged: word {place:,} is of the unknown type {kind[place]}")


def _events(x: Words, y: Words, t: Words, p: Words) -> np.ndarray:
    events = np.empty(len(t), dtype=EVENT)
    events["x"], events["y"], events["t"], events["p"] = x, y, t, p > 0
    return events


FORMATS: dict[str, tuple[np.dtype, Callable[[Words, str], np.ndarray]]] = {
    "dat": (np.dtype("<u8"), _dat),
    "evt2": (np.dtype("<u4"), _evt2),
    "evt3": (np.dtype("<u2"), _evt3),
}
