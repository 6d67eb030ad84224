"""Where the store is, as URLs say it; and who of several replicas is to do something."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from service.config.configuration import ConfigurationError, load
from store import AddressError, StoreAddress, parse_address, rendezvous_owner


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", StoreAddress((("h", 6379),))),
        ("valkey://h:1/2", StoreAddress((("h", 1),), database=2)),
        ("rediss://u:p%40@h", StoreAddress((("h", 6379),), tls=True, username="u", password="p@")),
        ("valkeys://:p@[::1]:7", StoreAddress((("::1", 7),), tls=True, password="p")),
        ("redis+cluster://a:1,b", StoreAddress((("a", 1), ("b", 6379)), kind="cluster")),
        (
            "valkeys+cluster://u:p@a",
            StoreAddress((("a", 6379),), kind="cluster", tls=True, username="u", password="p"),
        ),
        (
            "redis+sentinel://a,b:2/fleet",
            StoreAddress((("a", 26379), ("b", 2)), kind="sentinel", service="fleet"),
        ),
        ("unix:///run/store.sock?db=3", StoreAddress(path="/run/store.sock", database=3)),
    ],
)
def test_a_store_url_says_where_the_store_is(url: str, address: StoreAddress) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://h", "must begin with redis://"),
        ("redis+ring://h", "must begin with redis://"),
        ("h:6379", "must begin with redis://"),
        ("redis://", "is not host or host:port"),
        ("redis://h:x", "is not host or host:port"),
        ("redis://h:70000", "is not host or host:port"),
        ("redis://a,b", "several hosts"),
        ("redis://h/x", "a database is a number"),
        ("redis+cluster://h/1", "a cluster has no databases"),
        ("redis+sentinel://h", "the name of the service"),
        ("unix://", "the path of a socket"),
    ],
)
def test_a_malformed_store_url_is_refused_with_the_reason(url: str, fault: str) -> None:
    with pytest.raises(AddressError, match=fault):
        parse_address(url)
    with pytest.raises(ConfigurationError, match=f"store.url: .*{fault}"):
        load(None, {"store": {"url": url}})


def test_settings_complete_a_store_url_and_passwords_are_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "ca"
    file.touch()
    section = load(
        None, {"store": {"url": "rediss://h", "password": "secret", "ca_file": file}}
    ).store
    assert section.address.password == "secret"
    assert section.address.ca_file == file
    assert "secret" not in repr(section)
    assert "secret" not in repr(section.address)


def test_a_shared_index_needs_no_snapshot(tmp_path: Path) -> None:
    settings = {"store": {"url": "redis://h"}, "snapshot": {"path": str(tmp_path / "s")}}
    with pytest.raises(ConfigurationError, match=r"snapshot\.path"):
        load(None, settings)


def test_each_replica_owns_its_share_and_the_others_keep_theirs_when_it_leaves() -> None:
    names = [f"tcp://10.0.0.{number}:5557" for number in range(300)]
    replicas = ["a", "b", "c"]
    shares = {name: rendezvous_owner(name, replicas) for name in names}
    assert all(count > 60 for count in Counter(shares.values()).values())
    assert shares == {name: rendezvous_owner(name, reversed(replicas)) for name in names}  # type: ignore[arg-type]
    for name, owner in shares.items():
        if owner != "b":
            assert rendezvous_owner(name, ["a", "c"]) == owner
    assert rendezvous_owner("x", []) is None
