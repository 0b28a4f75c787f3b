"""How publications end that wait in batches, and who is told of lost ones."""

from __future__ import annotations

import anyio
import pytest

from serverwamp import Application, History
from serverwamp.backplanes.outbox import Outbox
from serverwamp.errors import BackplaneOutcomeUnknown, BackplaneUnavailable
from serverwamp.uris import MatchPolicy
from tests.helpers import anybody, wait_all_tasks_blocked


async def outcome_of(outbox: Outbox, outcomes: list[type[Exception] | None]) -> None:
    try:
        await outbox.publish("channel", b"frame")
    except (BackplaneUnavailable, BackplaneOutcomeUnknown) as error:
        outcomes.append(type(error))
    else:
        outcomes.append(None)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ("accepted", None),
        ("delivered first", None),
        ("copy lost", None),
        ("copy late", None),
        ("failed", BackplaneOutcomeUnknown),
        ("failed after acceptance", None),
        ("expired", BackplaneUnavailable),
        ("closed before it was sent", BackplaneUnavailable),
        ("closed", BackplaneOutcomeUnknown),
    ],
)
async def test_how_a_batch_ends(ends: str, expected: type[Exception] | None) -> None:
    outbox, outcomes = Outbox(lambda: None), list[type[Exception] | None]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(outcome_of, outbox, outcomes)
        await wait_all_tasks_blocked()
        if ends == "expired":
            assert outbox.expire(opened_before=float("inf"), now=0) == 0
        elif ends == "closed before it was sent":
            outbox.close()
        else:
            (batch,) = outbox.take(reply_by=5)
            if ends == "accepted":
                outbox.accept(batch, has_copy=False)
            elif ends == "delivered first":
                outbox.deliver(batch.number)
                outbox.accept(batch, has_copy=True)
            elif ends == "copy lost":
                outbox.accept(batch, has_copy=True)
                outbox.stop_waiting_for_copies()
            elif ends == "copy late":
                outbox.accept(batch, has_copy=True)
                outbox.expire(opened_before=0, now=4)
                assert not outbox.is_idle
                outbox.expire(opened_before=0, now=5)
            elif ends == "failed":
                outbox.stop_waiting_for_copies()
                outbox.expire(opened_before=0, now=9)
                outbox.fail(batch, BackplaneOutcomeUnknown, "no answer")
                outbox.fail(batch, BackplaneUnavailable, "too late")
                outbox.deliver(batch.number)
                batch.fail(BackplaneUnavailable, "too late")
            elif ends == "failed after acceptance":
                outbox.accept(batch, has_copy=True)
                outbox.fail(batch, BackplaneOutcomeUnknown, "no answer")
            else:
                outbox.close()
    assert outcomes == [expected]
    assert outbox.is_idle


async def test_posted_publications_are_counted_when_they_are_lost() -> None:
    outbox = Outbox(lambda: None)
    for channel in ("one", "one", "two"):
        outbox.post(channel, b"frame")
    assert outbox.expire(opened_before=float("inf"), now=0) == 3
    assert not outbox


@pytest.mark.parametrize(
    ("uri", "match", "forgets", "may_keep"),
    [
        ("kept.topic", "exact", False, True),
        ("other", "exact", True, False),
        ("nowhere", "exact", True, False),
        ("kept.", "prefix", False, True),
        ("kept.topic.below", "prefix", False, True),
        ("oth", "prefix", True, True),
        ("kep", "prefix", False, True),
        ("kept..below", "wildcard", True, True),
    ],
)
def test_which_patterns_need_to_be_told_of_a_lost_window(
    uri: str, match: MatchPolicy, forgets: bool, may_keep: bool
) -> None:
    app = Application()
    app.prefix_topic("kept.", history=History(5))(anybody)
    app.topic("other")(anybody)
    endpoints = app.freeze().endpoints
    endpoint = endpoints.topic_endpoint("kept.topic")
    assert endpoint is not None
    assert endpoint.log is not None
    assert endpoints.forgets(uri, match) is forgets
    assert endpoints.may_keep(uri, match, reader=endpoint.log.reader) is may_keep
