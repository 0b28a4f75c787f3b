"""Authorization: the requirements of routes, and the authorizer of a realm.

A request is authorized right after it is read, before its procedure or topic is looked up. The
client's next message is read only after the answer, so requests take effect in their order.

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
from serverwamp.concurrency.failures import raise_unless_failure
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
"""A role, a collection of roles (the session needs one of them), or a function that decides."""
Roles: TypeAlias = frozenset[str]
Requirements: TypeAlias = tuple[Roles | Callable[..., Any], ...]
"""The requirements of a route. A session must satisfy all of them."""
Rule: TypeAlias = Roles | Handler
"""A compiled requirement: roles (the session needs one of them), or the handler that decides."""
Answer: TypeAlias = bool | WAMPError
"""True if allowed; False if refused; an error if refused with that error."""

SOURCES_OF_QUESTIONS: Final[Mapping[str, type | None]] = {
    "session": Session,
    "action": None,
    "uri": None,
    "match": None,
    "options": None,
}
"""The values that an authorizer, or a function that is a requirement, can take as parameters."""

NO_PATTERNS: Final = OptionNotAllowed("patterns can't be authorized here, only single URIs")


def checked_requirements(requires: Requirement | None) -> Requirements:
    """Return a requirement as a tuple, to which others can be added.

    Raises: ConfigurationError when it is not a requirement.
    """
    if requires is None:
        return ()
    if isinstance(requires, str):
        return (frozenset((requires,)),)
    if callable(requires):
        return (requires,)
    if not isinstance(requires, Collection) or not all(isinstance(r, str) for r in requires):
        raise ConfigurationError(f"{requires!r} is not a role, a collection of roles or a function")
    return (frozenset(requires),)


def can_decide_about_patterns(
    decides: Handler, *, uri: Collection[str] = ("uri",), match: Collection[str] = ("match",)
) -> bool:
    """Tell whether a function can decide about a whole pattern, not only about single URIs.

    A function that takes the URI but not its match policy can't. It would take the prefix ``chat.``
    for a single URI, and a session that may use ``chat.room1`` isn't necessarily allowed to use
    everything that starts with ``chat.``.

    `uri` and `match` name the parameters by which such a function receives the URI and the match
    policy. One parameter of each is enough.
    """
    return not any(map(decides.takes, uri)) or any(map(decides.takes, match))


class Question(NamedTuple):
    """The question whether a session may perform an action on a URI."""

    session: Session
    action: Action
    uri: str
    match: MatchPolicy = "exact"
    sent_options: Options | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The options of the request, by their names in the protocol, without ``match``."""
        if self.sent_options is None:
            return {}
        options = msgspec.structs.asdict(self.sent_options)
        return {k: v for k, v in options.items() if v is not None and k != "match"}

    @property
    def sources(self) -> Mapping[str, Any]:
        """The values for the parameters of a function that decides."""
        return {
            "session": self.session,
            "action": self.action,
            "uri": self.uri,
            "match": self.match,
            "options": self.options,
        }

    def refusal(self, answer: Answer) -> WAMPError:
        """Return the error that tells the client about a negative answer."""
        if isinstance(answer, WAMPError):
            return answer
        return NotAuthorized(f"the session may not {self.action} {self.uri!r}")


def question_about(session: Session, message: Message) -> Question | None:
    """Return the question to ask before a message is handled; None if there is none."""
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
    """Return the answer of a function. If it fails or times out, the answer is a refusal."""
    try:
        with anyio.fail_after(limits.authorization_timeout):
            answer = await in_own_context(decides.call(question.sources))
        if answer is True or answer is False:
            return answer
        raise TypeError(f"{decides.name} returned {answer!r}, which is neither True nor False")
    except BaseException as error:
        raise_unless_failure(error)
        refusal = next((part for part in parts_of(error) if isinstance(part, WAMPError)), None)
        unknown = without(error, refusal)
        if unknown is not None:
            logger.error(
                "session %s may not %s %.100r, because %s failed",
                question.session.id,
                question.action,
                question.uri,
                decides.name,
                exc_info=unknown,
            )
        text = "the authorization failed; the server's log says why"
        return AuthorizationFailed(text) if refusal is None else refusal


def forget_answers(session: Session) -> None:
    """Forget what an authorizer has answered about a session.

    The answer of an authorizer that is running right now isn't remembered either.
    """
    session._answers = None


class Authorizer:
    """The authorizer of a realm, with a cache of its answers.

    Answers are cached in the session, by action, URI, match policy and role. If the function takes
    the options, answers to requests with options aren't cached.
    """

    def __init__(self, handler: Handler, lifetime: float, limits: Limits) -> None:
        self._handler = handler
        self._lifetime = lifetime
        self._limits = limits
        self._takes_options = handler.takes("options")
        self._can_decide_about_patterns = can_decide_about_patterns(handler)

    def known(self, question: Question) -> bool | None:
        """Return the cached answer; None if there is none."""
        answers = question.session._answers
        if answers is None:
            return None
        answer, good_until = answers.get(_key(question), (False, -math.inf))
        if monotonic() >= good_until or not self._is_cacheable(question):
            return None
        return answer

    async def answer(self, question: Question) -> Answer:
        """Return the cached answer, or ask the function."""
        known = self.known(question)
        return await self.ask(question) if known is None else known

    def _is_cacheable(self, question: Question) -> bool:
        return not (self._takes_options and question.options)

    async def ask(self, question: Question) -> Answer:
        """Ask the function, and cache its answer."""
        session, key = question.session, _key(question)
        # If the answers are forgotten while the function runs, the session gets another dict. This
        # answer then goes to the old dict, so it isn't cached.
        answers = session._answers
        if answers is None:
            answers = session._answers = {}
        if not uris.is_valid_uri(question.uri, question.match):
            return InvalidURI(f"{question.uri!r} is not a valid URI")
        is_pattern = question.match != "exact"
        if question.action == "register" and is_pattern and not self._can_decide_about_patterns:
            return NO_PATTERNS
        answer = await _decision(self._handler, question, self._limits)
        if isinstance(answer, bool) and self._lifetime and self._is_cacheable(question):
            answers.pop(key, None)
            while len(answers) >= self._limits.authorizations:
                del answers[next(iter(answers))]
            answers[key] = (answer, monotonic() + self._lifetime)
        return answer


def _key(question: Question) -> tuple[Any, ...]:
    return (question.action, question.uri, question.match, question.session.auth_role)


class Authorization:
    """The authorization of a realm: its authorizer, and the rules of its routes.

    `rules_for` returns the rules of the route that serves an action on a URI.
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
        """Return the answer if no function has to be called for it; otherwise None."""
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
        """Ask a question, if there is one.

        Raises: WAMPError when the answer is negative.
        """
        answer = True if question is None else await self.ask(question)
        if question is not None and answer is not True:
            raise question.refusal(answer)

    async def ask(self, question: Question) -> Answer:
        """Ask the authorizer, then the rules; return the first answer that isn't True."""
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
        """Tell whether a session may subscribe to a topic; True without an authorizer."""
        if self.authorizer is None:
            return True
        return await self.authorizer.answer(Question(session, "subscribe", topic)) is True


async def _answer_of(rule: Rule, question: Question, limits: Limits) -> Answer:
    if not isinstance(rule, Handler):
        return question.session.auth_role in rule
    if question.match != "exact" and not can_decide_about_patterns(rule):
        return NO_PATTERNS
    return await _decision(rule, question, limits)
