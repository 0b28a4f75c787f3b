"""Any octets, in any pieces, over RawSocket."""

from __future__ import annotations

from typing import Any

import anyio
from anyio.abc import ByteStream
from hypothesis import given
from hypothesis import strategies as st

from serverwamp.adapters.rawsocket import RawSocket
from serverwamp.errors import ProtocolViolation

units = st.builds(
    lambda kind, payload, cut: (bytes([kind]) + len(payload).to_bytes(3) + payload)[cut:],
    st.sampled_from([0, 0, 0, 1, 2]) | st.integers(0, 255),
    st.binary(max_size=40),
    st.sampled_from([0, 0, 0, 0, 1]),
)


class Pieces(ByteStream):
    """A stream that has been recorded; what is answered is recorded, too."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self.sent = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        if not self._pieces:
            raise anyio.EndOfStream
        return self._pieces.pop(0)

    async def send(self, item: bytes) -> None:
        self.sent += item

    async def send_eof(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


def taken_apart(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the messages in `data` up to the first mistake, and what PINGs are answered with."""
    messages, pongs = [], b""
    while len(data) >= 4:
        kind, length = data[0], int.from_bytes(data[1:4])
        if kind not in (0, 1, 2) or length > 32 or len(data) < 4 + length:
            break
        if kind == 0:
            messages.append(data[4 : 4 + length])
        elif kind == 1:
            pongs += b"\2" + data[1 : 4 + length]
        data = data[4 + length :]
    return messages, pongs


@given(data=st.lists(units, max_size=8).map(b"".join) | st.binary(max_size=60), cuts=st.data())
def test_any_octets_in_any_pieces(data: bytes, cuts: st.DataObject) -> None:
    places = sorted(cuts.draw(st.lists(st.integers(0, len(data)), max_size=6)))
    pieces = [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
    stream = Pieces(pieces)
    opened = RawSocket(stream, "wamp.2.msgpack", {}, longest_received=32, longest_sent=32)

    def check_length(length: float) -> None:
        if length > 32:
            raise ProtocolViolation("too long")

    opened.check_length = check_length
    received: list[Any] = []

    async def receive_all() -> None:
        while True:
            try:
                event = await opened.receive()
            except ProtocolViolation:
                assert (await opened.receive())["type"] == "websocket.disconnect"
                return
            if event["type"] == "websocket.disconnect":
                return
            received.append(event["bytes"])

    anyio.run(receive_all)
    assert (received, stream.sent) == taken_apart(data)
