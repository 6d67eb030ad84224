"""The reason and the limit in status details, held against Google's own messages."""

from __future__ import annotations

from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from kvatlas_client.error_info import DETAILS_KEY, ErrorInfo, error_info

TEXTS = st.text(max_size=20)
RETRY = error_details_pb2.RetryInfo()


def details(info: error_details_pb2.ErrorInfo, *others: object) -> bytes:
    """A status with these details, the info last."""
    status = status_pb2.Status(code=8, message="it is too much")
    for each in (*others, info):
        status.details.add().Pack(each)
    return bytes(status.SerializeToString())


@given(TEXTS, TEXTS, st.dictionaries(TEXTS, TEXTS, max_size=4), st.booleans())
def test_it_is_read_as_google_writes_it(
    reason: str, domain: str, metadata: dict[str, str], has_others: bool
) -> None:
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata)
    found = details(info, *([RETRY] if has_others else []))
    expected = ErrorInfo(reason, metadata.get("limit", ""))
    assert error_info([("other", b"x"), (DETAILS_KEY, found)]) == expected


@given(st.binary(max_size=60))
def test_foreign_details_are_no_error(details: bytes) -> None:
    assert isinstance(error_info([(DETAILS_KEY, details)]), ErrorInfo)


@given(st.data())
def test_damaged_details_are_no_error(data: st.DataObject) -> None:
    whole = details(error_details_pb2.ErrorInfo(reason="R" * 200, metadata={"limit": "x"}), RETRY)
    at = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + 1 :]
    assert isinstance(error_info([(DETAILS_KEY, damaged)]), ErrorInfo)
    assert isinstance(error_info([(DETAILS_KEY, whole[:at])]), ErrorInfo)


def test_without_details_there_is_no_reason() -> None:
    status = status_pb2.Status(code=5, details=[any_pb2.Any(type_url="x/another.Type", value=b"1")])
    for metadata in (None, [], [(DETAILS_KEY, status.SerializeToString())]):
        assert error_info(metadata) == ErrorInfo("", "")
