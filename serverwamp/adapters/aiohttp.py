"""Present aiohttp requests as ASGI: scope, receive and send. It doesn't depend on WAMP.

Spec: ASGI, "HTTP & WebSocket ASGI Message Format".
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from aiohttp import WSCloseCode, WSMsgType, web
from multidict import CIMultiDict

Event: TypeAlias = MutableMapping[str, Any]
ASGIApplication: TypeAlias = Callable[
    [Event, Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]], Awaitable[None]
]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""The usual limit of ASGI servers. After a longer message, aiohttp closes the socket with 1009."""

PING_INTERVAL = 20.0
"""Seconds between pings, as in Uvicorn. A client that doesn't answer in half that time is gone."""


def request_handler(
    application: ASGIApplication,
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Return an aiohttp request handler that serves `application`: WebSocket and plain HTTP."""

    async def handle(request: web.Request) -> web.StreamResponse:
        upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
        exchange: _WebSocket | _HTTP = _WebSocket(request) if upgrade else _HTTP(request)
        try:
            await application(exchange.scope, exchange.receive, exchange.send)
        except Exception:
            await exchange.fail()
            raise
        return exchange.response()

    return handle


def _scope(request: web.Request, kind: str) -> Event:
    transport = request.transport
    peer = transport.get_extra_info("peername") if transport else None
    own = transport.get_extra_info("sockname") if transport else None
    scheme = "https" if request.secure else "http"
    return {
        "type": kind,
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": f"{request.version.major}.{request.version.minor}",
        "method": request.method,
        "scheme": scheme if kind == "http" else scheme.replace("http", "ws"),
        "path": request.path,
        "raw_path": request.raw_path.partition("?")[0].encode("latin-1"),
        "root_path": "",
        "query_string": request.rel_url.raw_query_string.encode("latin-1"),
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": (peer[0], peer[1]) if isinstance(peer, tuple) else None,
        "server": (own[0], own[1]) if isinstance(own, tuple) else (own, None),
        "extensions": {
            "tls": {"client_cert_chain": _certificates(request)},
            **({"websocket.http.response": {}} if kind == "websocket" else {}),
        },
    }


def _certificates(request: web.Request) -> list[str]:
    transport = request.transport
    tls = transport.get_extra_info("ssl_object") if transport else None
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return [ssl.DER_cert_to_PEM_cert(certificate)] if certificate else []


class _HTTP:
    """An HTTP request and its response."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._status = 500
        self._headers: list[tuple[str, str]] = []
        self._body = bytearray()
        self._read = False
        self.scope = _scope(request, "http")

    async def receive(self) -> Event:
        """Return the request with its whole body, then the disconnection."""
        if self._read:
            return {"type": "http.disconnect"}
        self._read = True
        return {"type": "http.request", "body": await self._request.read(), "more_body": False}

    async def send(self, event: Event) -> None:
        """Collect a part of the response."""
        if event["type"] == "http.response.start":
            self._status = event["status"]
            self._headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in event.get("headers", ())
            ]
        else:
            self._body += event.get("body", b"")

    async def fail(self) -> None:
        """Do nothing, because nothing was sent yet: aiohttp answers with status 500."""

    def response(self) -> web.StreamResponse:
        """Return the collected response."""
        headers = CIMultiDict(self._headers)
        return web.Response(status=self._status, headers=headers, body=bytes(self._body))


class _WebSocket:
    """A WebSocket, from its handshake to its end."""

    def __init__(self, request: web.Request) -> None:
        offered = request.headers.getall("Sec-WebSocket-Protocol", [])
        if len(offered) > 1:  # aiohttp reads only the first of these headers
            headers = request.headers.copy()
            headers["Sec-WebSocket-Protocol"] = ", ".join(offered)
            request = request.clone(headers=headers)
        self._request = request
        self._socket: web.WebSocketResponse | None = None
        self._connected = False
        self._status = 403
        self.scope = _scope(request, "websocket")
        names = [name.strip() for name in ",".join(offered).split(",")]
        self.scope["subprotocols"] = [name for name in names if name]

    async def receive(self) -> Event:
        """Return the next event of the client."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        assert self._socket is not None
        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT:
            return {"type": "websocket.receive", "text": message.data}
        if message.type is WSMsgType.BINARY:
            return {"type": "websocket.receive", "bytes": message.data}
        return {"type": "websocket.disconnect", "code": self._socket.close_code or 1006}

    async def send(self, event: Event) -> None:
        """Accept or refuse the WebSocket, send a message, or close.

        Raises: OSError when the client is gone.
        """
        try:
            await self._send(event)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Tasks that wait for the client to read share a future. Cancelling one cancels all.
            raise OSError("the client doesn't read") from None

    async def _send(self, event: Event) -> None:
        kind = event["type"]
        if kind == "websocket.accept":
            subprotocol = event.get("subprotocol")
            self._socket = web.WebSocketResponse(
                protocols=(subprotocol,) if subprotocol else (),
                max_msg_size=MAX_MESSAGE_BYTES,
                heartbeat=PING_INTERVAL,
            )
            for name, value in event.get("headers", ()):
                self._socket.headers[name.decode("latin-1")] = value.decode("latin-1")
            await self._socket.prepare(self._request)
        elif self._socket is None:  # the response is a refusal
            self._status = event.get("status", self._status)
        elif kind == "websocket.close":
            await self._socket.close(
                code=event.get("code", 1000), message=(event.get("reason") or "").encode()
            )
        elif event.get("text") is not None:
            await self._socket.send_str(event["text"])
        else:
            await self._socket.send_bytes(event["bytes"])

    async def fail(self) -> None:
        """Close the WebSocket, because the application raised an exception."""
        if self._socket is not None:
            await asyncio.shield(self._socket.close(code=WSCloseCode.INTERNAL_ERROR))

    def response(self) -> web.StreamResponse:
        """Return the WebSocket, or the refusal, as aiohttp expects from a handler."""
        return self._socket or web.Response(status=self._status, text="WebSocket refused\n")
