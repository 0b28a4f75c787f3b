"""Every public name of serverwamp 3.0 is still there, and takes the parameters that it took."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import Any

import pytest

import serverwamp
import serverwamp.testing

NAMES: dict[str, str | None] = {
    "Application": (
        "allow_default_realm synchronize_requests camel_snake_conversion allowed_origins "
        "overflow client_register limits lifespan debug"
    ),
    "Application.add_realm": "realm",
    "Application.aiohttp_websocket_handler": "",
    "Application.asgi_application": "paths",
    "Application.close_sessions": "grace batch_size batch_interval",
    "Application.disconnect": "session auth_id auth_role realm reason message",
    "Application.graceful_shutdown": "grace batch_size batch_interval",
    "Application.serve_rawsocket": "host port path ssl_context task_status",
    "Application.statistics": "",
    "Limits": (
        "hello_timeout authentication_timeout authorization_timeout authorizations "
        "goodbye_timeout idle_timeout call_timeout send_timeout message_bytes "
        "unauthenticated_message_bytes message_depth array_length map_length uri_length "
        "sessions unauthenticated_sessions subscriptions calls_in_flight "
        "publications_in_flight testaments busy_timeout stream_chunks stream_bytes "
        "retained_topics retained_bytes registrations invocations_in_flight "
        "invocation_timeout message_rate outbound_messages outbound_bytes"
    ),
    "Limits.array_length": None,
    "Limits.authentication_timeout": None,
    "Limits.authorization_timeout": None,
    "Limits.authorizations": None,
    "Limits.busy_timeout": None,
    "Limits.call_timeout": None,
    "Limits.calls_in_flight": None,
    "Limits.goodbye_timeout": None,
    "Limits.hello_timeout": None,
    "Limits.idle_timeout": None,
    "Limits.invocation_timeout": None,
    "Limits.invocations_in_flight": None,
    "Limits.map_length": None,
    "Limits.message_bytes": None,
    "Limits.message_depth": None,
    "Limits.message_rate": None,
    "Limits.outbound_bytes": None,
    "Limits.outbound_messages": None,
    "Limits.publications_in_flight": None,
    "Limits.registrations": None,
    "Limits.retained_bytes": None,
    "Limits.retained_topics": None,
    "Limits.send_timeout": None,
    "Limits.sessions": None,
    "Limits.stream_bytes": None,
    "Limits.stream_chunks": None,
    "Limits.subscriptions": None,
    "Limits.testaments": None,
    "Limits.unauthenticated_message_bytes": None,
    "Limits.unauthenticated_sessions": None,
    "Limits.uri_length": None,
    "Statistics": None,
    "Statistics.calls": None,
    "Statistics.calls_in_flight": None,
    "Statistics.events_delivered": None,
    "Statistics.events_refused": None,
    "Statistics.outbound_bytes": None,
    "Statistics.outbound_messages": None,
    "Statistics.sessions": None,
    "Statistics.unauthenticated_sessions": None,
    "Statistics.violations": None,
    "Realm": "uri camel_snake_conversion overflow client_register",
    "Realm.add_routes": "routes",
    "Realm.route": "uri camel_snake_conversion requires",
    "Realm.prefix_route": "uri_prefix camel_snake_conversion requires",
    "Realm.wildcard_route": "uri_pattern camel_snake_conversion requires",
    "Realm.regex_route": "uri_pattern camel_snake_conversion requires",
    "Realm.add_topics": "routes",
    "Realm.topic": "uri overflow client_publish requires history",
    "Realm.prefix_topic": "uri_prefix overflow client_publish requires history",
    "Realm.wildcard_topic": "uri_pattern overflow client_publish requires history",
    "Realm.regex_topic": "uri_pattern overflow client_publish requires history",
    "Realm.publication": "uri camel_snake_conversion requires",
    "Realm.prefix_publication": "uri_prefix camel_snake_conversion requires",
    "Realm.wildcard_publication": "uri_pattern camel_snake_conversion requires",
    "Realm.regex_publication": "uri_pattern camel_snake_conversion requires",
    "Realm.publish": (
        "topic args kwargs exclude eligible exclude_authid eligible_authid "
        "exclude_authrole eligible_authrole publisher exclude_me disclose_me retain"
    ),
    "Realm.add_overflow_handler": "handler",
    "Realm.client_register": "uri match disclose_caller requires",
    "Realm.call": "uri args kwargs timeout",
    "Realm.add_default_arg": "name value factory",
    "Realm.add_error_handler": "kind error",
    "Realm.add_session_lifespan_handler": "handler authenticated_only",
    "Realm.add_transport_authenticator": "authenticator",
    "Realm.set_ticket_authenticator": "authenticator",
    "Realm.set_cra_handlers": "requirement_provider identity_provider",
    "Realm.set_scram_handlers": "requirement_provider identity_provider",
    "Realm.set_cryptosign_handlers": "requirement_provider identity_provider private_key",
    "Realm.set_authorizer": "function lifetime",
    "Realm.invalidate_authorizations": "session",
    "Realm.set_meta_api": "requires kill testaments",
    "Realm.set_authentication_handler": "handler",
    "Realm.set_rpc_handler": "handler",
    "Realm.set_subscription_handler": "handler",
    "Realm.add_rpc_routes": "routes",
    "Realm.add_topic_routes": "routes",
    "Realm.set_default_arg": "arg_name value factory",
    "Realm.add_session_state_handler": "handler authenticated_only",
    "OverflowPolicy": None,
    "RPCRouteSet": "prefix camel_snake_conversion requires",
    "RPCRouteSet.route": "uri camel_snake_conversion requires",
    "RPCRouteSet.prefix_route": "uri_prefix camel_snake_conversion requires",
    "RPCRouteSet.wildcard_route": "uri_pattern camel_snake_conversion requires",
    "RPCRouteSet.regex_route": "uri_pattern camel_snake_conversion requires",
    "TopicRouteSet": "prefix requires",
    "TopicRouteSet.topic": "uri overflow client_publish requires history",
    "TopicRouteSet.prefix_topic": "uri_prefix overflow client_publish requires history",
    "TopicRouteSet.wildcard_topic": "uri_pattern overflow client_publish requires history",
    "TopicRouteSet.regex_topic": "uri_pattern overflow client_publish requires history",
    "TopicRouteSet.publication": "uri camel_snake_conversion requires",
    "TopicRouteSet.prefix_publication": "uri_prefix camel_snake_conversion requires",
    "TopicRouteSet.wildcard_publication": "uri_pattern camel_snake_conversion requires",
    "TopicRouteSet.regex_publication": "uri_pattern camel_snake_conversion requires",
    "TopicRouteSet.route": "uri",
    "TopicRouteSet.prefix_route": "uri_prefix",
    "TopicRouteSet.regex_route": "uri_pattern",
    "RPCRequest": None,
    "RPCRequest.args": None,
    "RPCRequest.disclose_caller": None,
    "RPCRequest.id": None,
    "RPCRequest.kwargs": None,
    "RPCRequest.receive_progress": None,
    "RPCRequest.session": None,
    "RPCRequest.timeout": None,
    "RPCRequest.uri": None,
    "RPCResult": "args kwargs",
    "RPCResult.args": None,
    "RPCResult.kwargs": None,
    "RPCProgressReport": "args kwargs",
    "RPCProgressReport.args": None,
    "RPCProgressReport.kwargs": None,
    "RPCErrorResult": "error_uri args kwargs",
    "RPCErrorResult.args": None,
    "RPCErrorResult.error_uri": None,
    "RPCErrorResult.kwargs": None,
    "ClientCall": None,
    "ClientCall.cancel": "",
    "Session": None,
    "Session.abort": "reason message",
    "Session.call": "uri args kwargs timeout",
    "Session.challenge": "method extra",
    "Session.close": "reason message",
    "Session.expires_at": None,
    "Session.get": "key default",
    "Session.is_open": None,
    "Session.is_subscribed": "subscription",
    "Session.mark_authenticated": "identity",
    "Session.refresh": "ticket",
    "Session.send_event": "topic args kwargs",
    "Session.welcome_extra": None,
    "Session.id": None,
    "Session.realm": None,
    "Session.connection": None,
    "Session.auth_id": None,
    "Session.auth_methods": None,
    "Session.auth_method": None,
    "Session.auth_role": None,
    "Session.auth_provider": None,
    "Session.auth_extra": None,
    "Session.identity": None,
    "Session.is_authenticated": None,
    "Subscription": None,
    "Subscription.created": None,
    "Subscription.id": None,
    "Subscription.match": None,
    "Subscription.topic": None,
    "Audience": None,
    "Audience.eligible": None,
    "Audience.eligible_authid": None,
    "Audience.eligible_authrole": None,
    "Audience.exclude": None,
    "Audience.exclude_authid": None,
    "Audience.exclude_authrole": None,
    "Audience.includes": "session",
    "Publication": None,
    "Publication.args": None,
    "Publication.audience": None,
    "Publication.disclosed": None,
    "Publication.exclude_me": None,
    "Publication.id": None,
    "Publication.kwargs": None,
    "Publication.publisher": None,
    "Publication.retain": None,
    "Publication.topic": None,
    "History": "events age bytes store",
    "History.age": None,
    "History.bytes": None,
    "History.events": None,
    "History.store": None,
    "HistoryStore": None,
    "HistoryStore.append": "event",
    "HistoryStore.read": "query cursor",
    "HistoryBound": "at included",
    "HistoryBound.at": None,
    "HistoryBound.included": None,
    "HistoryPage": "events is_complete time cursor",
    "HistoryPage.cursor": None,
    "HistoryPage.events": None,
    "HistoryPage.is_complete": None,
    "HistoryPage.time": None,
    "HistoryQuery": "since until limit reverse",
    "HistoryQuery.limit": None,
    "HistoryQuery.reverse": None,
    "HistoryQuery.since": None,
    "HistoryQuery.until": None,
    "StoredEvent": None,
    "StoredEvent.payload": "",
    "StoredEvent.publication": None,
    "StoredEvent.size": None,
    "StoredEvent.time": None,
    "StoredEvent.timestamp": None,
    "StoredEvent.unit": None,
    "CRAAuthRequirement": "secret auth_role auth_provider salt iterations keylen",
    "CRAAuthRequirement.auth_provider": None,
    "CRAAuthRequirement.auth_role": None,
    "CRAAuthRequirement.iterations": None,
    "CRAAuthRequirement.keylen": None,
    "CRAAuthRequirement.salt": None,
    "CRAAuthRequirement.secret": None,
    "SCRAMAuthRequirement": (
        "stored_key server_key salt kdf iterations memory autobahn_stored_key "
        "autobahn_server_key auth_role auth_provider"
    ),
    "SCRAMAuthRequirement.auth_provider": None,
    "SCRAMAuthRequirement.auth_role": None,
    "SCRAMAuthRequirement.autobahn_server_key": None,
    "SCRAMAuthRequirement.autobahn_stored_key": None,
    "SCRAMAuthRequirement.memory": None,
    "SCRAMAuthRequirement.stored_key": None,
    "SCRAMAuthRequirement.server_key": None,
    "SCRAMAuthRequirement.salt": None,
    "SCRAMAuthRequirement.kdf": None,
    "SCRAMAuthRequirement.iterations": None,
    "CryptosignAuthRequirement": "public_key auth_role auth_provider",
    "CryptosignAuthRequirement.auth_provider": None,
    "CryptosignAuthRequirement.auth_role": None,
    "CryptosignAuthRequirement.public_key": None,
    "jwt_authenticator": "algorithms key jwks audience issuer leeway",
    "cra_credential": "secret iterations",
    "scram_credential": "password kdf iterations memory",
    "cryptosign_credential": "private_key",
    "derive_cra_secret": "secret salt iterations keylen",
    "WAMPError": "uri args kwargs",
    "WAMPError.args": None,
    "WAMPError.default_uri": None,
    "WAMPError.message": None,
    "WAMPError.uri": None,
    "WAMPError.kwargs": None,
    "ConfigurationError": None,
}
"""The documented names, with the names of their parameters."""

TESTING_NAMES: dict[str, str | None] = {
    "connect": (
        "app realm subprotocol subprotocols path query_string headers cookies "
        "peer_address extensions timeout **login"
    ),
    "Client": None,
    "Client.call": "uri args kwargs timeout **options",
    "Client.catch_up": "subscription timeout **since",
    "Client.disconnect": "code",
    "Client.expect": "wanted what timeout",
    "Client.expect_close": "timeout",
    "Client.expect_event": "subscription timeout",
    "Client.expect_invocation": "registration timeout",
    "Client.expect_nothing": "",
    "Client.join": (
        "realm authid authmethods authextra ticket secret password private_key roles timeout"
    ),
    "Client.leave": "reason timeout",
    "Client.next_request": "",
    "Client.pause": "",
    "Client.publish": "topic args kwargs timeout **options",
    "Client.receive": "timeout",
    "Client.register": "procedure timeout **options",
    "Client.resume": "",
    "Client.send": "*messages",
    "Client.send_frame": "frame",
    "Client.start_call": "uri args kwargs **options",
    "Client.subscribe": "topic timeout **options",
    "Client.unregister": "registration timeout",
    "Client.unsubscribe": "subscription timeout",
    "Client.session": None,
    "Client.welcome": None,
    "Client.close_code": None,
    "Client.transcript": None,
    "PendingCall": None,
    "PendingCall.cancel": "mode",
    "PendingCall.end_chunks": "",
    "PendingCall.progress": "timeout",
    "PendingCall.result": "timeout",
    "PendingCall.send_chunk": "chunk",
    "PendingCall.request": None,
    "CallResult": None,
    "CallResult.args": None,
    "CallResult.kwargs": None,
    "Registration": None,
    "Registration.id": None,
    "Registration.procedure": None,
    "Invocation": None,
    "Invocation.error": "uri args kwargs",
    "Invocation.expect_interrupt": "timeout",
    "Invocation.progress": "args kwargs",
    "Invocation.result": "args kwargs",
    "Invocation.request": None,
    "Invocation.registration": None,
    "Invocation.details": None,
    "Invocation.args": None,
    "Invocation.kwargs": None,
    "CaughtUp": None,
    "CaughtUp.events": None,
    "CaughtUp.complete": None,
    "CaughtUp.time": None,
    "Event": None,
    "Event.args": None,
    "Event.kwargs": None,
    "Event.subscription": None,
    "Event.publication": None,
    "Event.details": None,
    "Subscription": None,
    "Subscription.id": None,
    "Subscription.topic": None,
    "ExpectationFailed": None,
    "HandshakeRefused": "status",
    "HandshakeRefused.status": None,
}
"""Those of the test client."""


CASES = [
    *((serverwamp, name) for name in NAMES),
    *((serverwamp.testing, name) for name in TESTING_NAMES),
]


def is_there(owner: Any, name: str) -> bool:
    """Tell whether a module or class has an attribute, or a class gives it to its instances."""
    if hasattr(owner, name):
        return True
    classes = [kind for kind in owner.__mro__ if kind.__module__.startswith("serverwamp")]
    return any(
        name in inspect.get_annotations(kind) or f"self.{name}" in inspect.getsource(kind)
        for kind in classes
    )


@pytest.mark.parametrize(("module", "path"), CASES, ids=[path for _, path in CASES])
def test_a_name_of_version_3_0(module: ModuleType, path: str) -> None:
    owner: Any = module
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    assert is_there(owner, name)
    taken = (NAMES if module is serverwamp else TESTING_NAMES)[path]
    if taken is not None:
        parameters = inspect.signature(getattr(owner, name)).parameters.values()
        marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        names = [marks.get(p.kind, "") + p.name for p in parameters if p.name != "self"]
        assert set(taken.split()) <= set(names)


def test_all_names_can_be_imported_with_a_star() -> None:
    assert {name for name in NAMES if "." not in name} <= set(serverwamp.__all__)
