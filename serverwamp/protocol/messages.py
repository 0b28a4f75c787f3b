"""A frozen class for each WAMP message; its fields are in the order of the message's elements.

msgspec decodes messages into these classes. This checks the type code, the length, and the type of
each element and each known option. Unknown options are ignored. A null option counts as absent.

One module despite its length: it is a flat list of small classes.

Spec: Basic Profile, "Messages"; Advanced Profile, "Messages".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from msgspec import Meta, Struct
from msgspec.structs import astuple

from serverwamp.protocol.ids import MAX_ID
from serverwamp.uris import InvokePolicy, MatchPolicy

Id: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_ID)]
RequestOrZero: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_ID)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0)]
Details: TypeAlias = Mapping[str, Any]
Args: TypeAlias = Sequence[Any]
Kwargs: TypeAlias = Mapping[str, Any]


class Options(Struct, frozen=True, gc=False):
    """The known entries of an options or details dict; other entries are ignored."""


class Message(
    Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True, tag_field="code"
):
    """A WAMP message; the class determines its type code."""

    type_code: ClassVar[int]
    """The first element of the encoded message."""
    id_positions: ClassVar[tuple[int, ...]] = (1,)
    """The positions of ids in the encoded message."""
    options_position: ClassVar[int] = 2
    """The position of the options or details in the encoded message."""
    id_options: ClassVar[tuple[str, ...]] = ()
    """The names of the options that are lists of ids."""

    def wire(self) -> tuple[Any, ...]:
        """Return the elements of the message, as they are encoded."""
        return (self.type_code, *astuple(self))


class PayloadMessage(Message, frozen=True):
    """A message that ends in ``args`` and ``kwargs``."""

    def wire(self) -> tuple[Any, ...]:
        """Return the elements of the message, without empty arguments at its end."""
        fields = astuple(self)
        if fields[-1]:
            return (self.type_code, *fields[:-2], fields[-2] or (), fields[-1])
        if fields[-2]:
            return (self.type_code, *fields[:-1])
        return (self.type_code, *fields[:-2])


# ---- session


class Role(Options, frozen=True):
    """A role that a client announces in HELLO."""

    features: Mapping[str, bool | None] | None = None


class HelloDetails(Options, frozen=True):
    """The details of HELLO."""

    roles: Mapping[str, Role] | None = None
    authmethods: Sequence[str] | None = None
    authid: str | None = None
    authrole: str | None = None
    authextra: Details | None = None

    def __repr__(self) -> str:  # without authextra, which may contain a secret
        return f"HelloDetails(authid={self.authid!r}, authmethods={self.authmethods!r}, ...)"


class Hello(Message, tag=1, frozen=True):
    """``[HELLO, Realm|uri, Details|dict]``"""

    id_positions: ClassVar[tuple[int, ...]] = ()

    realm: str | None
    details: HelloDetails


class Welcome(Message, tag=2, frozen=True):
    """``[WELCOME, Session|id, Details|dict]``"""

    session: Id
    details: Details


class Abort(PayloadMessage, tag=3, frozen=True):
    """``[ABORT, Details|dict, Reason|uri, Arguments|list, ArgumentsKw|dict]``

    The server never sends arguments, because Autobahn|Python refuses an ABORT with arguments.
    """

    id_positions: ClassVar[tuple[int, ...]] = ()
    options_position: ClassVar[int] = 1

    details: Details
    reason: str
    args: Args | None = None
    kwargs: Kwargs | None = None


class Challenge(Message, tag=4, frozen=True):
    """``[CHALLENGE, AuthMethod|string, Extra|dict]``"""

    id_positions: ClassVar[tuple[int, ...]] = ()

    method: str
    extra: Details


class Authenticate(Message, tag=5, frozen=True):
    """``[AUTHENTICATE, Signature|string, Extra|dict]``"""

    id_positions: ClassVar[tuple[int, ...]] = ()

    signature: str
    extra: Details

    def __repr__(self) -> str:  # without the signature, which may be a password
        return "Authenticate(signature=<hidden>)"


class Goodbye(Message, tag=6, frozen=True):
    """``[GOODBYE, Details|dict, Reason|uri]``"""

    id_positions: ClassVar[tuple[int, ...]] = ()
    options_position: ClassVar[int] = 1

    details: Details
    reason: str


class Error(PayloadMessage, tag=8, frozen=True):
    """``[ERROR, REQUEST.Type|int, REQUEST.Request|id, Details|dict, Error|uri, Arguments|list,
    ArgumentsKw|dict]``"""

    id_positions: ClassVar[tuple[int, ...]] = (2,)
    options_position: ClassVar[int] = 3

    request_type: int
    request: Id
    details: Details
    error: str
    args: Args | None = None
    kwargs: Kwargs | None = None


# ---- publish and subscribe


class PublishOptions(Options, frozen=True):
    """The options of PUBLISH."""

    acknowledge: bool | None = None
    exclude_me: bool | None = None
    exclude: Sequence[int] | None = None
    exclude_authid: Sequence[str] | None = None
    exclude_authrole: Sequence[str] | None = None
    eligible: Sequence[int] | None = None
    eligible_authid: Sequence[str] | None = None
    eligible_authrole: Sequence[str] | None = None
    disclose_me: bool | None = None
    retain: bool | None = None


class Publish(PayloadMessage, tag=16, frozen=True):
    """``[PUBLISH, Request|id, Options|dict, Topic|uri, Arguments|list, ArgumentsKw|dict]``"""

    id_options: ClassVar[tuple[str, ...]] = ("exclude", "eligible")

    request: Id
    options: PublishOptions
    topic: str
    args: Args | None = None
    kwargs: Kwargs | None = None


class Published(Message, tag=17, frozen=True):
    """``[PUBLISHED, PUBLISH.Request|id, Publication|id]``"""

    id_positions: ClassVar[tuple[int, ...]] = (1, 2)

    request: Id
    publication: Id


class SubscribeOptions(Options, frozen=True):
    """The options of SUBSCRIBE."""

    match: MatchPolicy | None = None
    get_retained: bool | None = None


class Subscribe(Message, tag=32, frozen=True):
    """``[SUBSCRIBE, Request|id, Options|dict, Topic|uri]``"""

    request: Id
    options: SubscribeOptions
    topic: str


class Subscribed(Message, tag=33, frozen=True):
    """``[SUBSCRIBED, SUBSCRIBE.Request|id, Subscription|id]``"""

    id_positions: ClassVar[tuple[int, ...]] = (1, 2)

    request: Id
    subscription: Id


class Unsubscribe(Message, tag=34, frozen=True):
    """``[UNSUBSCRIBE, Request|id, SUBSCRIBED.Subscription|id]``"""

    id_positions: ClassVar[tuple[int, ...]] = (1, 2)

    request: Id
    subscription: Id


class Unsubscribed(Message, tag=35, frozen=True):
    """``[UNSUBSCRIBED, UNSUBSCRIBE.Request|id]``"""

    request: RequestOrZero


class Event(PayloadMessage, tag=36, frozen=True):
    """``[EVENT, Subscription|id, Publication|id, Details|dict, Arguments|list,
    ArgumentsKw|dict]``"""

    id_positions: ClassVar[tuple[int, ...]] = (1, 2)
    options_position: ClassVar[int] = 3

    subscription: Id
    publication: Id
    details: Details
    args: Args | None = None
    kwargs: Kwargs | None = None


# ---- calls


class CallOptions(Options, frozen=True):
    """The options of CALL."""

    receive_progress: bool | None = None
    timeout: Milliseconds | None = None
    progress: bool | None = None
    disclose_me: bool | None = None


class Call(PayloadMessage, tag=48, frozen=True):
    """``[CALL, Request|id, Options|dict, Procedure|uri, Arguments|list, ArgumentsKw|dict]``"""

    request: Id
    options: CallOptions
    procedure: str
    args: Args | None = None
    kwargs: Kwargs | None = None


class CancelOptions(Options, frozen=True):
    """The options of CANCEL."""

    mode: Literal["skip", "kill", "killnowait"] | None = None


class Cancel(Message, tag=49, frozen=True):
    """``[CANCEL, CALL.Request|id, Options|dict]``"""

    request: Id
    options: CancelOptions


class Result(PayloadMessage, tag=50, frozen=True):
    """``[RESULT, CALL.Request|id, Details|dict, YIELD.Arguments|list, YIELD.ArgumentsKw|dict]``"""

    request: Id
    details: Details
    args: Args | None = None
    kwargs: Kwargs | None = None


# ---- procedures of clients


class RegisterOptions(Options, frozen=True):
    """The options of REGISTER."""

    match: MatchPolicy | None = None
    invoke: InvokePolicy | None = None
    disclose_caller: bool | None = None


class Register(Message, tag=64, frozen=True):
    """``[REGISTER, Request|id, Options|dict, Procedure|uri]``"""

    request: Id
    options: RegisterOptions
    procedure: str


class Registered(Message, tag=65, frozen=True):
    """``[REGISTERED, REGISTER.Request|id, Registration|id]``"""

    id_positions: ClassVar[tuple[int, ...]] = (1, 2)

    request: Id
    registration: Id


class Unregister(Message, tag=66, frozen=True):
    """``[UNREGISTER, Request|id, REGISTERED.Registration|id]``"""

    id_positions: ClassVar[tuple[int, ...]] = (1, 2)

    request: Id
    registration: Id


class Unregistered(Message, tag=67, frozen=True):
    """``[UNREGISTERED, UNREGISTER.Request|id]``"""

    request: RequestOrZero


class Invocation(PayloadMessage, tag=68, frozen=True):
    """``[INVOCATION, Request|id, REGISTERED.Registration|id, Details|dict, CALL.Arguments|list,
    CALL.ArgumentsKw|dict]``"""

    id_positions: ClassVar[tuple[int, ...]] = (1, 2)
    options_position: ClassVar[int] = 3

    request: Id
    registration: Id
    details: Details
    args: Args | None = None
    kwargs: Kwargs | None = None


class Interrupt(Message, tag=69, frozen=True):
    """``[INTERRUPT, INVOCATION.Request|id, Options|dict]``"""

    request: Id
    options: Details


class YieldOptions(Options, frozen=True):
    """The options of YIELD."""

    progress: bool | None = None


class Yield(PayloadMessage, tag=70, frozen=True):
    """``[YIELD, INVOCATION.Request|id, Options|dict, Arguments|list, ArgumentsKw|dict]``"""

    request: Id
    options: YieldOptions
    args: Args | None = None
    kwargs: Kwargs | None = None


AnyMessage: TypeAlias = (
    Hello
    | Welcome
    | Abort
    | Challenge
    | Authenticate
    | Goodbye
    | Error
    | Publish
    | Published
    | Subscribe
    | Subscribed
    | Unsubscribe
    | Unsubscribed
    | Event
    | Call
    | Cancel
    | Result
    | Register
    | Registered
    | Unregister
    | Unregistered
    | Invocation
    | Interrupt
    | Yield
)

BY_CODE: Mapping[int, type[Message]] = {
    int(str(cls.__struct_config__.tag)): cls
    for base in (Message, PayloadMessage)
    for cls in base.__subclasses__()
    if cls is not PayloadMessage
}
"""The message classes by type code."""

for _code, _cls in BY_CODE.items():
    _cls.type_code = _code
