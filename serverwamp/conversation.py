"""What the calls and the subscriptions of an open session share: where they belong, and a voice."""

from __future__ import annotations

import logging

from serverwamp.errors import SerializationError, WAMPError
from serverwamp.limits import LimitLog, Limits
from serverwamp.outbound import Outbound
from serverwamp.protocol.messages import Error, Message
from serverwamp.protocol.serializers import Serializer
from serverwamp.protocol.session import SessionState, State
from serverwamp.realm import Realm
from serverwamp.session import Session
from serverwamp.starting import Starter

logger: logging.Logger = logging.getLogger(__name__)


class Conversation:
    """An open session, for those who take part in it."""

    def __init__(
        self,
        session: Session,
        realm: Realm,
        state: SessionState,
        serializer: Serializer,
        outbound: Outbound,
        starter: Starter,
        limits: Limits,
        limit_log: LimitLog,
        *,
        debug: bool,
    ) -> None:
        self.session: Session = session
        self.realm: Realm = realm
        self.serializer: Serializer = serializer
        self.outbound: Outbound = outbound
        self.starter: Starter = starter
        self.limits: Limits = limits
        self.limit_log: LimitLog = limit_log
        self.debug: bool = debug
        self._state = state
        self._encode = serializer.encode
        self._put = outbound.put

    @property
    def is_open(self) -> bool:
        """Whether anything can still be said."""
        return self._state.state is State.OPEN

    def send(self, message: Message) -> None:
        """Queue a message; dropped when the session isn't open any more.

        Raises: SerializationError.
        """
        if self._state.state is State.OPEN:
            self._put(self._encode(message))

    def send_error(self, kind: int, request: int, error: WAMPError) -> None:
        """Queue the ERROR that answers a request; if need be, without its arguments."""
        try:
            self.send(Error(kind, request, {}, error.uri, error.args, error.kwargs))
        except SerializationError as failure:
            logger.error("the arguments of error %s are lost: %s", error.uri, failure)
            self.send(Error(kind, request, {}, error.uri))
