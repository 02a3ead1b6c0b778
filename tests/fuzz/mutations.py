"""Small damages, drawn by a seeded generator."""

import copy
import json
import random
import struct
from typing import Any

ODD_BYTES = (b"", b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff", b"% end\n", b"\n", b"PK\3\4", b"#!AER")
DEEP = "a list in lists, 2,000 deep"  # no writer of JSON goes so far
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 10**26, 10**400, 2**31, 1e309, float("nan"),
    "", "fold", "mpbn", "a" * 300, "\0", [], {}, [[]], [1, 2], {"name": "tanh"}, {"a": {}},
)  # fmt: skip


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Bytes with one to three damages: flipped bits, odd numbers, cuts, repeats, insertions."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        place = chance.randrange(len(data) + 1)
        if chance.random() < 0.5:  # headers decide most
            place = min(place, chance.randrange(200))
        length = chance.choice((1, 1, 2, 4, 8, 64))
        match chance.randrange(7):
            case 0 | 1:
                flipped = bytearray(data)
                if place < len(data):
                    flipped[place] ^= 1 << chance.randrange(8)
                data = bytes(flipped)
            case 2:
                number = struct.pack("<q", chance.choice((0, -1, 1, 2**31, 2**62, 255, 65_535)))
                data = data[:place] + number[:length] + data[place + length :]
            case 3:
                data = data[:place]
            case 4:
                data = data[:place] + data[place + length :]
            case 5:
                data = data[:place] + data[place : place + length] * 3 + data[place + length :]
            case 6:
                data = data[:place] + chance.choice(ODD_BYTES) + data[place:]
    return data


def altered(chance: random.Random, plain: Any) -> Any:
    """Plain data in which a value, somewhere, is another, of another kind, absent or new."""
    plain = copy.deepcopy(plain)
    spots = list(_spots(plain))
    if not spots:
        return chance.choice(ODD_VALUES)
    holder, key = chance.choice(spots)
    match chance.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(("nonsense", "", "name"))] = chance.choice(ODD_VALUES)
        case 2:
            holder[key] = DEEP
        case _:
            holder[key] = chance.choice(ODD_VALUES)
    return plain


def dumped(plain: Any) -> str:
    """JSON of what `altered` made."""
    return json.dumps(plain).replace(json.dumps(DEEP), "[" * 2_000 + "]" * 2_000)


def _spots(plain: Any) -> Any:
    """Every place in nested plain data."""
    keys = plain.keys() if isinstance(plain, dict) else range(len(plain))
    for key in keys:
        yield plain, key
        if isinstance(plain[key], dict | list):
            yield from _spots(plain[key])
