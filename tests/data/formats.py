"""Small event recordings, their bytes written by the formats' specifications."""

import struct
from collections.abc import Sequence

Row = tuple[int, int, int, int]  # x, y, t, p
Rows = Sequence[Row]

AEDAT4_INFO = (
    '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">'
    '<node name="0" path="/mainloop/Recorder/outInfo/0/">'
    '<attr key="compression" type="string">NONE</attr>'
    '<attr key="originalModuleName" type="string">camera</attr>'
    '<attr key="originalOutputName" type="string">events</attr>'
    '<attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>'
    '<attr key="typeIdentifier" type="string">EVTS</attr>'
    '<node name="info" path="/mainloop/Recorder/outInfo/0/info/">'
    '<attr key="sizeX" type="int">{}</attr><attr key="sizeY" type="int">{}</attr>'
    "</node></node></node></dv>"
)


def five_bytes(*rows: Row) -> bytes:
    """N-MNIST's .bin and SLAYER's .bs2: x, y, then polarity bit and 23 bits of time, big-endian."""
    return b"".join(bytes([x, y]) + ((p << 23) | t).to_bytes(3, "big") for x, y, t, p in rows)


def dat(rows: Rows, header: bytes = b"% Height 240\n% Width 304\n") -> bytes:
    """Prophesee .dat: event type 12 of 8 bytes; 32 bits of t; 14 bits x, 14 bits y, 4 bits p."""
    start = b"% Data file containing CD events.\n% Version 2\n" + header + b"\x0c\x08"
    return start + b"".join(struct.pack("<II", t, x | (y << 14) | (p << 28)) for x, y, t, p in rows)


def evt2(rows: Rows, header: bytes = b"% evt 2.0\n") -> bytes:
    """EVT 2: words of 32 bits, their highest 4 the type.

    0 and 1: darker and brighter, with the 6 lowest bits of time, x (11) and y (11); 8: the bits of
    time above these.
    """
    words = []
    for x, y, t, p in rows:
        words += [(8 << 28) | (t >> 6), (p << 28) | ((t & 63) << 22) | (x << 11) | y]
    return header + struct.pack(f"<{len(words)}I", *words)


def evt3(rows: Rows, header: bytes = b"% evt 3.0\n") -> bytes:
    """EVT 3: words of 16 bits, their highest 4 the type.

    8 and 6: the higher and lower 12 bits of time; 0: y (11); 2: polarity (bit 11) and x, an event.
    """
    words = []
    for x, y, t, p in rows:
        words += [0x8000 | (t >> 12), 0x6000 | (t & 4095), y, 0x2000 | (p << 11) | x]
    return header + struct.pack(f"<{len(words)}H", *words)


def aedat4(rows: Rows, sensor: tuple[int, int]) -> bytes:
    """AEDAT 4 without compression: a version line, a header and one packet, both FlatBuffers.

    A FlatBuffer: its size, the place of its table, an identifier, the places of fields in the
    table, the table (the distance to these, then distances to the fields' contents), contents.
    """
    info = AEDAT4_INFO.format(*sensor).encode()
    fields = struct.pack("<HHHHH2x", 10, 8, 0, 0, 4)  # of three fields only the last is there
    header = struct.pack("<I4s", 8 + len(fields), b"IOHE") + fields
    header += struct.pack("<iII", len(fields), 4, len(info)) + info + b"\0"
    fields = struct.pack("<HHH2x", 6, 8, 4)
    packet = struct.pack("<I4s", 8 + len(fields), b"EVTS") + fields
    packet += struct.pack("<iI4xI", len(fields), 8, len(rows))  # so that events begin at 8 n
    packet += b"".join(struct.pack("<qhh?3x", t, x, y, bool(p)) for x, y, t, p in rows)
    packet = struct.pack("<I", len(packet)) + packet
    stream = struct.pack("<II", 0, len(packet))
    return b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header + stream + packet
