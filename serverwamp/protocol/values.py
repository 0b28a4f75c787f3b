"""Whether a message holds too many values, found out before any of them is made.

An empty array takes one octet on the wire and more than sixty in memory. So what is longer than the
number of values that a message may hold is read once, from its first value to the one that is too
many, and nothing is built of it. What is shorter can't hold too many.

Every array, map, key and other value counts, the message itself included. CBOR's tags, the ends of
its arrays of unknown length, and the pieces of its texts count too.

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
"""JSON text up to where another value begins, or up to its end.

Another one begins behind a comma, a colon, and the bracket of what isn't empty, outside of texts.
The pattern matches everywhere and never goes back: hostile text takes no longer than other text.
"""


class JSONValues:
    """The values in JSON text."""

    def exceed(self, unit: str, most: float) -> bool:
        """Tell whether there are more than `most`; what is empty but for a space counts twice."""
        if len(unit) <= most:
            return False
        unit = unit.replace("[]", "0").replace("{}", "0")
        if 1 + sum(map(unit.count, ",:[{")) <= most:
            return False
        return any(True for _ in islice(VALUE.finditer(unit), int(most), None))


class BinaryValues:
    """The values in a binary format: each begins with an octet that says how long it is.

    `sizes` tells how many octets what begins with an octet has; of an array or a map that is what
    comes before its first value. What isn't in there is in `prefixed`: how many octets of length
    follow, and how many other octets besides as many as these say.
    """

    def __init__(self, sizes: Mapping[int, int], prefixed: Mapping[int, tuple[int, int]]) -> None:
        self._sizes = [sizes.get(octet, 0 if octet in prefixed else 1) for octet in range(256)]
        self._prefixed = prefixed

    def exceed(self, unit: bytes, most: float) -> bool:
        """Tell whether there are more than `most`; false when the message is cut off before."""
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
