"""Test an application in process: a WAMP client over ASGI, on asyncio and on trio.

    async with connect(app, "realm1") as client:
        result = await client.call("math.add", (2, 3))
        assert result.args == (5,)

There is no network and no server.
"""

from serverwamp.testing.asgi import ASGIApplication as ASGIApplication
from serverwamp.testing.asgi import ASGIEvent as ASGIEvent
from serverwamp.testing.asgi import ExpectationFailed as ExpectationFailed
from serverwamp.testing.asgi import HandshakeRefused as HandshakeRefused
from serverwamp.testing.asgi import running as running
from serverwamp.testing.client import ROLES as ROLES
from serverwamp.testing.client import CallResult as CallResult
from serverwamp.testing.client import CaughtUp as CaughtUp
from serverwamp.testing.client import Client as Client
from serverwamp.testing.client import Event as Event
from serverwamp.testing.client import Invocation as Invocation
from serverwamp.testing.client import PendingCall as PendingCall
from serverwamp.testing.client import Registration as Registration
from serverwamp.testing.client import Subscription as Subscription
from serverwamp.testing.client import connect as connect
