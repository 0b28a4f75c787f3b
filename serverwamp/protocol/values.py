"""Count the values of an encoded message before it is decoded.

An empty array takes one byte on the wire and more than sixty bytes in memory. A message with many
values is therefore refused before decoding. Only messages with more bytes than the maximum number
of values need counting, and counting stops at the first value above the maximum.

Every array, map, key and other value counts, including the message itself. In CBOR, each tag, each
"break" and each chunk of a string counts as well.

Spec: RFC 8259; RFC 8949, "Specification of the CBOR Encoding"; the formats of MessagePack.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Final

VALUE: Final = re.compile(
    r"""(?=.) (?: [^",:\[{]++ | "(?: [^"\\]++ | \\.? )*+ "? )*+ (?: [,:\[{] | \Z )""",
    re.DOTALL | re.VERBOSE,
)
"""Matches JSON text up to the beginning of the next value, or to the end of the text.

Outside strings, a value begins after a comma, a colon, or the opening bracket of a container that
isn't empty. The pattern matches at every position and never backtracks, so hostile text takes no
longer than other text.
"""


class JSONValues:
    """Counts the values in JSON text."""

    def exceed(self, unit: str, most: float) -> bool:
        """Tell whether `unit` has more than `most` values.

        An empty array or map with white space between its brackets counts twice.
        """
        if len(unit) <= most:
            return False
        unit = unit.replace("[]", "0").replace("{}", "0")
        if 1 + sum(map(unit.count, ",:[{")) <= most:
            return False
        return any(True for _ in islice(VALUE.finditer(unit), int(most), None))


class BinaryValues:
    """Counts the values in a binary format, in which the first byte of a value tells its size.

    `sizes` maps the first byte to the size in bytes of the value; for an array or a map, to the
    size of its header. `prefixed` is for values with a length field after the first byte. It maps
    the first byte to the size of that field, and to the number of further bytes that the length
    doesn't count. A byte in neither is a value of one byte.
    """

    def __init__(self, sizes: Mapping[int, int], prefixed: Mapping[int, tuple[int, int]]) -> None:
        self._sizes = [sizes.get(octet, 0 if octet in prefixed else 1) for octet in range(256)]
        self._prefixed = prefixed

    def exceed(self, unit: bytes, most: float) -> bool:
        """Tell whether `unit` has more than `most` values; False if it is cut off before that."""
        if len(unit) <= most:
            return False
        sizes, position, end = self._sizes, 0, len(unit)
        for _ in range(int(most)):
            if position >= end:
                return False
            first = unit[position]
            size = sizes[first]
            if not size:
                length_size, more = self._prefixed[first]
                length = int.from_bytes(unit[position + 1 : position + 1 + length_size])
                size = 1 + length_size + more + length
            position += size
        return position < end


JSON_VALUES: Final = JSONValues()
MESSAGEPACK_VALUES: Final = BinaryValues(
    {
        **{0xA0 + length: 1 + length for length in range(32)},
        **{0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9},  # integers
        **{0xCA: 5, 0xCB: 9},  # floats
        **{0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18},  # extensions
        **{0xDC: 3, 0xDD: 5, 0xDE: 3, 0xDF: 5},  # arrays and maps
    },
    {
        **{0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0)},  # binary
        **{0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)},  # extensions
        **{0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)},  # texts
    },
)
CBOR_VALUES: Final = BinaryValues(
    {
        **{
            0x20 * major + 24 + power: 1 + 2**power
            for major in (0, 1, 4, 5, 6, 7)
            for power in range(4)
        },
        **{0x20 * major + length: 1 + length for major in (2, 3) for length in range(24)},
    },
    {0x20 * major + 24 + power: (2**power, 0) for major in (2, 3) for power in range(4)},
)
