"""Serve calls and live events over one WebSocket, in an ASGI app, to any WAMP client."""

from serverwamp.application import Application as Application
from serverwamp.auth.authentication import CRAAuthRequirement as CRAAuthRequirement
from serverwamp.auth.cryptosign import CryptosignAuthRequirement as CryptosignAuthRequirement
from serverwamp.auth.cryptosign import cryptosign_credential as cryptosign_credential
from serverwamp.auth.jwt import jwt_authenticator as jwt_authenticator
from serverwamp.auth.scram import SCRAMAuthRequirement as SCRAMAuthRequirement
from serverwamp.auth.scram import scram_credential as scram_credential
from serverwamp.binding.annotations import Converter as Converter
from serverwamp.binding.results import RPCErrorResult as RPCErrorResult
from serverwamp.binding.results import RPCProgressReport as RPCProgressReport
from serverwamp.binding.results import RPCResult as RPCResult
from serverwamp.client_call import ClientCall as ClientCall
from serverwamp.errors import ConfigurationError as ConfigurationError
from serverwamp.errors import WAMPError as WAMPError
from serverwamp.history import History as History
from serverwamp.history import HistoryBound as HistoryBound
from serverwamp.history import HistoryPage as HistoryPage
from serverwamp.history import HistoryQuery as HistoryQuery
from serverwamp.history import HistoryStore as HistoryStore
from serverwamp.history import StoredEvent as StoredEvent
from serverwamp.limits import Limits as Limits
from serverwamp.outbound.backlog import OverflowPolicy as OverflowPolicy
from serverwamp.protocol.auth.cra import cra_credential as cra_credential
from serverwamp.protocol.auth.cra import derive_cra_secret as derive_cra_secret
from serverwamp.publication import Audience as Audience
from serverwamp.publication import Publication as Publication
from serverwamp.realm import Realm as Realm
from serverwamp.router.broker import Subscription as Subscription
from serverwamp.router.lost_windows import LostWindow as LostWindow
from serverwamp.routing import RPCRouteSet as RPCRouteSet
from serverwamp.routing import TopicRouteSet as TopicRouteSet
from serverwamp.session import RPCRequest as RPCRequest
from serverwamp.session import Session as Session
from serverwamp.statistics import Health as Health
from serverwamp.statistics import Statistics as Statistics

__all__ = [
    "Application",
    "Audience",
    "CRAAuthRequirement",
    "ClientCall",
    "ConfigurationError",
    "Converter",
    "CryptosignAuthRequirement",
    "Health",
    "History",
    "HistoryBound",
    "HistoryPage",
    "HistoryQuery",
    "HistoryStore",
    "Limits",
    "LostWindow",
    "OverflowPolicy",
    "Publication",
    "RPCErrorResult",
    "RPCProgressReport",
    "RPCRequest",
    "RPCResult",
    "RPCRouteSet",
    "Realm",
    "SCRAMAuthRequirement",
    "Session",
    "Statistics",
    "StoredEvent",
    "Subscription",
    "TopicRouteSet",
    "WAMPError",
    "cra_credential",
    "cryptosign_credential",
    "derive_cra_secret",
    "jwt_authenticator",
    "scram_credential",
]
