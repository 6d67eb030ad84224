"""What network policies let pass, as Kubernetes reads them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from support.deployed.manifests import Object, of_kind, selects

if TYPE_CHECKING:
    from collections.abc import Mapping


class Peer(NamedTuple):
    """One end of a connection: a pod, or an address that is none."""

    labels: dict[str, str]
    address: str = ""
    other_namespace: bool = False
    ports: Mapping[str, int] = {}  # its named ports


def allows(objects: list[Object], source: Peer, target: Peer, port: int, kind: str = "TCP") -> bool:
    """Whether the source may leave, and the target be reached."""
    return _passes(objects, "Egress", source, target, port, kind) and _passes(
        objects, "Ingress", target, source, port, kind
    )


def _passes(
    objects: list[Object], direction: str, pod: Peer, other: Peer, port: int, kind: str
) -> bool:
    """Whether the policies of a pod let a connection with `other` pass."""
    if pod.address or pod.other_namespace:
        return True  # policies are about pods of their own namespace
    mine = [
        each["spec"]
        for each in of_kind(objects, "NetworkPolicy")
        if direction in each["spec"]["policyTypes"]
        and selects(each["spec"]["podSelector"], pod.labels)
    ]
    target = other if direction == "Egress" else pod
    field = "to" if direction == "Egress" else "from"
    return not mine or any(
        any(_is_peer(peer, other) for peer in rule[field])
        and any(_is_port(each, target, port, kind) for each in rule["ports"])
        for spec in mine
        for rule in spec.get(direction.lower(), [])
    )


def _is_peer(peer: Object, other: Peer) -> bool:
    if "ipBlock" in peer:
        network = ip_network(peer["ipBlock"]["cidr"])
        return bool(other.address) and ip_address(other.address) in network
    if other.address or (other.other_namespace and "namespaceSelector" not in peer):
        return False
    return selects(peer["podSelector"], other.labels)


def _is_port(allowed: Object, target: Peer, port: int, kind: str) -> bool:
    if allowed.get("protocol", "TCP") != kind:
        return False
    if isinstance(allowed["port"], str):
        return target.ports.get(allowed["port"]) == port
    first: int = allowed["port"]
    last: int = allowed.get("endPort", first)
    return first <= port <= last
