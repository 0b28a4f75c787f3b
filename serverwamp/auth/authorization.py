"""What a session may do: what routes require of it, and what the authorizer of a realm says.

Both are asked where a request is read, before anything is looked up that it names. Nothing more
is read from that client until there is an answer, so its requests take effect in their order.

Spec: Advanced Profile, "Authorization".
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from time import monotonic
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import anyio
import msgspec

from serverwamp import uris
from serverwamp.binding.handler import Handler
from serverwamp.concurrency.contexts import in_own_context
from serverwamp.concurrency.tasks import part_to_reraise
from serverwamp.errors import (
    AuthorizationFailed,
    ConfigurationError,
    InvalidURI,
    NotAuthorized,
    OptionNotAllowed,
    WAMPError,
    parts_of,
    without,
)
from serverwamp.limits import Limits
from serverwamp.protocol.messages import Call, Message, Options, Publish, Register, Subscribe
from serverwamp.session import Session
from serverwamp.uris import MatchPolicy

logger: logging.Logger = logging.getLogger(__name__)

Action: TypeAlias = Literal["call", "register", "subscribe", "publish"]
Requirement: TypeAlias = str | Collection[str] | Callable[..., Any]
"""A role, a collection of roles, or a function that decides."""
Roles: TypeAlias = frozenset[str]
Requirements: TypeAlias = tuple[Roles | Callable[..., Any], ...]
"""What a route requires: all of it."""
Rule: TypeAlias = Roles | Handler
"""A requirement as it is looked at: roles of which one is needed, or what decides."""
Answer: TypeAlias = bool | WAMPError
"""Whether something is allowed; or with which error it is refused."""

SOURCES_OF_QUESTIONS: Final[Mapping[str, type | None]] = {
    "session": Session,
    "action": None,
    "uri": None,
    "match": None,
    "options": None,
}


ONE_BY_ONE: Final = OptionNotAllowed("that is decided about one URI at a time")


def checked_requirements(requires: Requirement | None) -> Requirements:
    """Return a requirement in the form in which it can be added to others.

    Raises: ConfigurationError.
    """
    if requires is None:
        return ()
    if isinstance(requires, str):
        return (frozenset((requires,)),)
    if callable(requires):
        return (requires,)
    if not isinstance(requires, Collection) or not all(isinstance(r, str) for r in requires):
        raise ConfigurationError(f"{requires!r} is not a role, roles, or a function that decides")
    return (frozenset(requires),)


class Question(NamedTuple):
    """Whether a session may do something."""

    session: Session
    action: Action
    uri: str
    match: MatchPolicy = "exact"
    sent_options: Options | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the client has said besides, by its names in the protocol."""
        if self.sent_options is None:
            return {}
        options = msgspec.structs.asdict(self.sent_options)
        return {k: v for k, v in options.items() if v is not None and k != "match"}

    @property
    def sources(self) -> Mapping[str, Any]:
        """What a function that decides can be given."""
        return {
            "session": self.session,
            "action": self.action,
            "uri": self.uri,
            "match": self.match,
            "options": self.options,
        }

    def refusal(self, answer: Answer) -> WAMPError:
        """Return the error that answers the request if it isn't allowed."""
        if isinstance(answer, WAMPError):
            return answer
        return NotAuthorized(f"the session may not {self.action} {self.uri!r}")


def question_about(session: Session, message: Message) -> Question | None:
    """Return what has to be asked before a message is heeded, if anything."""
    if isinstance(message, Call):
        return Question(session, "call", message.procedure, "exact", message.options)
    if isinstance(message, Publish):
        return Question(session, "publish", message.topic, "exact", message.options)
    if isinstance(message, Subscribe):
        match = message.options.match or "exact"
        return Question(session, "subscribe", message.topic, match, message.options)
    if isinstance(message, Register):
        match = message.options.match or "exact"
        return Question(session, "register", message.procedure, match, message.options)
    return None


async def _decision(decides: Handler, question: Question, limits: Limits) -> Answer:
    """Return what a function says; whatever goes wrong in it refuses."""
    try:
        with anyio.fail_after(limits.authorization_timeout):
            answer = await in_own_context(decides.call(question.sources))
        if answer is True or answer is False:
            return answer
        raise TypeError(f"{decides.name} returned {answer!r}, which is neither True nor False")
    except BaseException as error:
        if part_to_reraise(error) is not None:
            raise
        refusal = next((part for part in parts_of(error) if isinstance(part, WAMPError)), None)
        unknown = without(error, refusal)
        if unknown is not None:
            logger.error(
                "whether session %s may %s %.100r is not known: %s failed",
                question.session.id,
                question.action,
                question.uri,
                decides.name,
                exc_info=unknown,
            )
        text = "what decides about it failed; the server's log says why"
        return AuthorizationFailed(text) if refusal is None else refusal


class Authorizer:
    """What a realm asks about everything, and for how long it holds to the answers.

    They are kept with the session: for an action, a URI, a match policy, and its role. Where the
    function looks at the options, answers to requests that have any aren't kept.
    """

    def __init__(self, handler: Handler, lifetime: float, limits: Limits) -> None:
        self._handler = handler
        self._lifetime = lifetime
        self._limits = limits
        self._takes_options = handler.takes("options")

    def known(self, question: Question) -> bool | None:
        """Return the answer if it is known already."""
        answers = question.session._answers
        if answers is None:
            return None
        answer, good_until = answers.get(_key(question), (False, -math.inf))
        if monotonic() >= good_until or not self._is_kept(question):
            return None
        return answer

    async def answer(self, question: Question) -> Answer:
        """Return the answer, whether it is known already or not."""
        known = self.known(question)
        return await self.ask(question) if known is None else known

    def _is_kept(self, question: Question) -> bool:
        return not (self._takes_options and question.options)

    async def ask(self, question: Question) -> Answer:
        """Return the answer, and keep it."""
        session, key = question.session, _key(question)
        answers = session._answers
        if answers is None:  # so is what was forgotten while the function decides
            answers = session._answers = {}
        if not uris.is_valid_uri(question.uri, question.match):
            return InvalidURI(f"{question.uri!r} is not a valid URI")
        if question.action == "register" and _knows_too_little(self._handler, question):
            return ONE_BY_ONE
        answer = await _decision(self._handler, question, self._limits)
        if isinstance(answer, bool) and self._lifetime and self._is_kept(question):
            answers.pop(key, None)
            while len(answers) >= self._limits.authorizations:
                del answers[next(iter(answers))]
            answers[key] = (answer, monotonic() + self._lifetime)
        return answer


def _key(question: Question) -> tuple[Any, ...]:
    return (question.action, question.uri, question.match, question.session.auth_role)


class Authorization:
    """What decides in a realm: its authorizer, and what the route requires.

    `rules_for` returns the latter: of the route that serves an action on a URI.
    """

    def __init__(
        self,
        authorizer: Authorizer | None,
        rules_for: Callable[[Action, str, MatchPolicy], Sequence[Rule]],
        limits: Limits,
    ) -> None:
        self.authorizer: Authorizer | None = authorizer
        self._rules_for = rules_for
        self._limits = limits

    def known(self, question: Question) -> Answer | None:
        """Return the answer if nobody has to be asked for it."""
        if self.authorizer is not None:
            answer = self.authorizer.known(question)
            if answer is not True:
                return answer
        for rule in self._rules_for(question.action, question.uri, question.match):
            if isinstance(rule, Handler):
                return None
            if question.session.auth_role not in rule:
                return False
        return True

    async def check(self, question: Question | None) -> None:
        """Ask, if there is anything to be asked.

        Raises: WAMPError when it isn't allowed.
        """
        answer = True if question is None else await self.ask(question)
        if question is not None and answer is not True:
            raise question.refusal(answer)

    async def ask(self, question: Question) -> Answer:
        """Return the answer: of all that decide, the first that isn't True."""
        if self.authorizer is not None:
            answer = await self.authorizer.answer(question)
            if answer is not True:
                return answer
        for rule in self._rules_for(question.action, question.uri, question.match):
            answer = await _answer_of(rule, question, self._limits)
            if answer is not True:
                return answer
        return True

    async def may_hear(self, session: Session, topic: str) -> bool:
        """Tell whether the authorizer, if there is one, lets a session subscribe to a topic."""
        if self.authorizer is None:
            return True
        return await self.authorizer.answer(Question(session, "subscribe", topic)) is True


async def _answer_of(rule: Rule, question: Question, limits: Limits) -> Answer:
    if not isinstance(rule, Handler):
        return question.session.auth_role in rule
    if _knows_too_little(rule, question):
        return ONE_BY_ONE
    return await _decision(rule, question, limits)


def _knows_too_little(decides: Handler, question: Question) -> bool:
    """Tell whether a function takes a pattern for one URI.

    Who may hear ``chat.room1`` may not hear all that begins so.
    """
    return question.match != "exact" and decides.takes("uri") and not decides.takes("match")
