"""So many calls are under way, of one tenant and in bytes, and no more."""

from __future__ import annotations

import pytest
from pydantic import ByteSize

from service.config import LimitsSection
from service.rpc.bounds.call_admission import LARGE_BYTES, CallAdmission
from service.rpc.errors import TooBusyError


def test_a_call_beyond_the_limit_is_refused_until_another_one_is_over() -> None:
    admission = CallAdmission(LimitsSection(concurrent_calls=2))
    admission.enter(1, "")
    admission.enter(1, "")
    with pytest.raises(TooBusyError, match=r"\(limits\.concurrent_calls\)") as raised:
        admission.enter(1, "")
    assert raised.value.limit == "concurrent_calls"
    admission.leave(1, "")
    admission.enter(1, "")


def test_a_tenant_at_its_limit_leaves_room_for_others() -> None:
    admission = CallAdmission(LimitsSection(concurrent_calls_per_tenant=1))
    admission.enter(1, "a")
    with pytest.raises(TooBusyError, match="concurrent_calls_per_tenant"):
        admission.enter(1, "a")
    admission.enter(1, "b")
    admission.enter(1, "")
    admission.leave(1, "a")
    admission.enter(1, "a")


def test_only_tenants_with_a_call_under_way_are_remembered() -> None:
    admission = CallAdmission(LimitsSection())
    for number in range(1000):
        admission.enter(1, f"tenant {number}")
        admission.leave(1, f"tenant {number}")
    assert not admission.tenants


def test_large_requests_leave_half_of_the_bytes_to_small_ones() -> None:
    limit = 8 * LARGE_BYTES
    admission = CallAdmission(LimitsSection(concurrent_bytes=ByteSize(limit)))
    large = LARGE_BYTES + 1
    for _ in range(3):
        admission.enter(large, "")
    with pytest.raises(TooBusyError, match="concurrent_bytes"):
        admission.enter(large, "")
    for _ in range(4):
        admission.enter(LARGE_BYTES, "")
    with pytest.raises(TooBusyError, match="concurrent_bytes"):
        admission.enter(LARGE_BYTES, "")
    admission.enter(1000, "")


def test_one_request_is_admitted_alone_however_large() -> None:
    admission = CallAdmission(LimitsSection(concurrent_bytes=ByteSize(2**20)))
    admission.enter(2**24, "")
    with pytest.raises(TooBusyError):
        admission.enter(2**24, "")
    admission.leave(2**24, "")
    admission.enter(2**24, "")
