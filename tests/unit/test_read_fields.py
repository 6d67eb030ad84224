"""Which fields of a request's body were looked at."""

from __future__ import annotations

from service.rpc.explain.read_fields import ReadFields


def test_fields_that_nobody_has_looked_at_are_unread() -> None:
    body = ReadFields({"a": 1, "b": None, "c": 3, "d": 4})
    assert (body["a"], body.get("b"), body.get("missing"), "c" in body) == (1, None, None, True)
    assert body.unread == ["d"]
    assert body.value_of("d") == 4
    assert body.unread == ["d"]


def test_whoever_copies_all_fields_has_looked_at_them() -> None:
    body = ReadFields({"a": 1, "b": 2})
    assert {**body} == dict(body) == {"a": 1, "b": 2}
    assert body.unread == []
