"""The verdict on a rollout finds what it is there to find."""

from __future__ import annotations

from typing import Any

import pytest
from kvatlas.v1.trust_pb2 import (
    TRUST_STATE_DEGRADED,
    TRUST_STATE_EXACT,
    TRUST_STATE_PARTIAL,
)
from rollout.callers import Call, Entry
from rollout.pods import Life
from rollout.verdict import Judge, Phase, Verdict

POD = "10.0.0.1:8000"
HELD = {POD: {"published_at": [10.0, 11.0, 12.0], "blocks": ["0103", "0203", "0104"]}}
"""Of two prompts, after each of three frames."""


def judged(*calls: Call, **life: Any) -> Verdict:
    lives = {POD: Life(**{"has_replay": True, "listed_at": 5.0, **life})}
    phase = Phase("steady", 0.0, 100.0, 0.0, [], longest_behind=2.0)
    (verdict,) = Judge(HELD, lives).judge([phase], calls, [])
    return verdict


def call(entry: Entry | None, begun: float = 13.5, error: str = "", prompt: int = 0) -> Call:
    entries = {} if entry is None else {POD: entry}
    return Call("call", prompt, begun, begun + 0.01, error, entries)


def exact(matched: int, as_of: int | None) -> Entry:
    return Entry(matched, TRUST_STATE_EXACT, "", as_of)


@pytest.mark.parametrize(("prompt", "matched"), [(0, 1), (1, 4)])
def test_an_exact_answer_is_right_if_it_is_as_of_the_frame_it_names(
    prompt: int, matched: int
) -> None:
    verdict = judged(call(exact(matched, 2), prompt=prompt))
    assert not verdict.wrong
    assert not verdict.unmarked
    assert verdict.exact_share(has_replay=True) == 1.0


@pytest.mark.parametrize("matched", [0, 2])
def test_an_exact_answer_with_more_or_fewer_blocks_is_wrong(matched: int) -> None:
    assert judged(call(exact(matched, 2))).wrong


@pytest.mark.parametrize(("matched", "is_wrong"), [(0, False), (1, False), (2, True)])
def test_a_partial_answer_is_wrong_only_with_more_blocks(matched: int, is_wrong: bool) -> None:
    entry = Entry(matched, TRUST_STATE_PARTIAL, "joined_late", 2)
    assert bool(judged(call(entry)).wrong) == is_wrong


def test_a_missing_pod_is_unmarked_ignorance() -> None:
    assert judged(call(None)).missing


def test_a_pod_that_is_new_or_not_listed_any_more_may_be_missing() -> None:
    assert not judged(call(None, begun=12.5)).missing
    assert not judged(call(None), unlisted_at=13.4).missing


def test_an_exact_answer_as_of_long_ago_is_outdated() -> None:
    assert not judged(call(exact(2, 1), begun=13.5)).outdated
    verdict = judged(call(exact(2, 1), begun=14.5))
    assert verdict.outdated
    assert verdict.behind_seconds == 2.5


def test_a_pod_that_is_long_gone_is_to_be_forgotten() -> None:
    entry = Entry(1, TRUST_STATE_DEGRADED, "restored", 2)
    assert not judged(call(entry), unlisted_at=6.0).unmarked
    assert judged(call(entry), unlisted_at=5.0).unmarked
    assert not judged(call(None), unlisted_at=5.0).unmarked


def test_calls_before_the_first_phase_are_not_judged() -> None:
    assert judged(call(exact(0, 2), begun=-0.1)).milliseconds == []


def test_failures_and_the_longest_time_without_an_exact_answer_are_counted() -> None:
    degraded = Entry(1, TRUST_STATE_DEGRADED, "restored", 2)
    moments = [14.0, 14.5, 15.0, 18.0, 18.2]
    calls = [call(degraded, begun=moment) for moment in moments]
    verdict = judged(*calls, call(None, error="UNAVAILABLE: gone"))
    assert verdict.not_exact_seconds == 1.0
    assert verdict.failed == {"call: UNAVAILABLE: gone": 1}
    assert verdict.marks() == "5 degraded (restored)"
