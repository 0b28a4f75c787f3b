"""A fleet of devices that register procedures, which a web page calls through the server.

Run it from the root of the repository, and open http://127.0.0.1:8000 in two tabs, or on a
phone as well. Each tab can be a device, and can see and call all others::

    pip install -e ".[demo]"
    uvicorn examples.fleet:wamp
"""

import logging
from collections.abc import AsyncIterator

import anyio
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

import serverwamp
from examples.pages import page_routes
from serverwamp import RPCResult, Session, WAMPError

app = serverwamp.Application()

logger = logging.getLogger(__name__)
devices: dict[str, Session] = {}


@app.route("devices.join")
async def join_fleet(name: str, session: Session) -> None:
    """Give a device its name. From then on it may register procedures below that name."""
    if not name.isalnum() or len(name) > 20:
        raise WAMPError("devices.error.bad_name", ["a name is up to 20 letters and digits"])
    if session in devices.values():
        raise WAMPError("devices.error.has_name", ["this is a device already"])
    if name in devices:
        raise WAMPError("devices.error.name_taken", [f"there is a device {name!r} already"])
    devices[name] = session
    await app.publish("devices.online", args=list(devices))


def is_its_own(uri: str, session: Session) -> bool:
    return devices.get(uri.split(".")[1]) is session


# All clients can call the procedures that devices register below "fleet.". Only this application
# can call other procedures that clients register.
app.client_register("fleet.", match="prefix", requires=is_its_own)


@app.topic("devices.online")
async def watch(session: Session) -> AsyncIterator[None]:
    session.send_event(args=list(devices))
    yield


async def leave_fleet(session: Session) -> AsyncIterator[None]:
    yield
    for name in [name for name, device in devices.items() if device is session]:
        del devices[name]
        await app.publish("devices.online", args=list(devices))


app.add_session_lifespan_handler(leave_fleet)


@app.route("devices.survey")
async def survey() -> RPCResult:
    """Ask all devices at once, and leave out those that don't answer within two seconds."""
    readings: dict[str, float] = {}

    async def ask(name: str, device: Session) -> None:
        try:
            result = await device.call(f"fleet.{name}.measure", timeout=2)
            readings[name] = float(result.args[0])
        except (WAMPError, LookupError, TypeError, ValueError) as error:
            logger.info("device %s has nothing to say: %r", name, error)

    async with anyio.create_task_group() as tasks:
        for name, device in devices.items():
            tasks.start_soon(ask, name, device)
    return RPCResult(kwargs=readings)


wamp = Starlette(routes=[WebSocketRoute("/ws", app), *page_routes("fleet.html")])
