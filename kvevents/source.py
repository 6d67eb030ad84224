"""Where frames come from, and which pod and model published them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from indexer import Worker
from kvevents.wire import ExtraStrings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


@dataclass(frozen=True)
class Curve:
    """ZMQ's CURVE: keys are in files as `zmq.auth.create_certificates` writes them."""

    key_file: Path
    """The secret key of kvatlas."""
    publishers: Path
    """Bound: a directory with the public keys of those who may connect. Else the public key of the
    publisher."""


class Publisher(NamedTuple):
    """The pod that published a frame, and the model that it serves."""

    pod: str
    model: str


class UnknownPublisherError(ValueError):
    """A frame's pod, model or rank is not known; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Source:
    """One configured ZMQ endpoint of frames; sources are equal only if they are the same object."""

    endpoint: str
    """A ZMQ address."""
    bind: bool = False
    """Whether pods connect to the endpoint, rather than kvatlas to a pod."""
    topic: str = ""
    """The prefix of the topics that are received; empty for all."""
    pod: str = ""
    """The pod behind the endpoint; empty if the topic names it."""
    model: str = ""
    """The model that the pod serves; empty if the topic names it, else `default_model`."""
    rank: int | None = None
    """The data-parallel rank; None if the payloads have it."""
    default_model: str = ""
    pod_names: Mapping[str, str] = field(default_factory=dict)
    """A pod's name in topics -> the name that callers use (`ip:port`)."""
    extra_strings: ExtraStrings = ExtraStrings.AUTO
    replay: str = ""
    """The ZMQ address of the engine's replay socket; empty if there is none.

    `{host}` in it stands for the pod's host; then the port is that of rank 0, and the number of a
    rank is added to it.
    """
    allowed_pods: tuple[str, ...] = ("*",)
    """Patterns of the pods whose events are applied, as callers name them."""
    allowed_models: tuple[str, ...] = ("*",)
    """Patterns of the models that these may serve."""
    allowed_peers: tuple[str, ...] = ()
    """IP addresses and networks that may connect to a bound TCP endpoint; empty: all."""
    curve: Curve | None = None
    """Encrypts the connections, and says who may be at their other end; None: nothing does."""
    replay_hosts: tuple[str, ...] = ()
    """Patterns of hosts that `{host}` may stand for because a pod's name says so."""
    rank_ports: bool = False
    """Whether callers know each rank as a pod of its own, at the pod's port plus the rank."""
    is_discovered: bool = False
    """Whether somebody says when its pod has gone: silence alone never makes it depart."""

    def worker_of(self, pod: str, rank: int) -> Worker:
        """The worker that a rank of a pod is, by the name that callers use."""
        return Worker(_at_port(pod, rank) if self.rank_ports else pod, rank)

    def _pod_of(self, worker: Worker) -> str:
        """The pod that a worker is a rank of."""
        return _at_port(worker.pod, -worker.rank) if self.rank_ports else worker.pod

    def replay_endpoint(self, worker: Worker, peer: str = "") -> str | None:
        """The address of the worker's replay socket, None if there is none.

        Names come off the wire. So the host in one is used only if the configuration allows it;
        otherwise `{host}` stands for the address of the peer that publishes for the worker.
        """
        if "{host}" not in self.replay:
            return self.replay or None
        host, _, _ = worker.pod.rpartition(":")
        host = host or worker.pod
        if not self._may_name_host(host, peer):
            host = f"[{peer}]" if ":" in peer else peer
        if not _HOST.fullmatch(host):
            return None
        address, _, port = self.replay.replace("{host}", host).rpartition(":")
        return f"{address}:{int(port) + worker.rank}"

    def _may_name_host(self, host: str, peer: str) -> bool:
        is_allowed = _matches(host, self.replay_hosts)
        return bool(self.pod) or is_allowed or (_is_loopback(host) and _is_loopback(peer))

    def could_publish(self, worker: Worker, model: str) -> bool:
        """Whether the configuration allows frames of this worker and model to come from here."""
        pod = self._pod_of(worker)
        is_configured = self.pod in ("", pod) and self.model in ("", model)
        return is_configured and not self._refusal_of(Publisher(pod, model))

    def _refusal_of(self, publisher: Publisher) -> str:
        """Why events of this publisher are not applied, in one word; empty if they are."""
        if not _matches(publisher.pod, self.allowed_pods):
            return "pod_not_allowed"
        return "" if _matches(publisher.model, self.allowed_models) else "model_not_allowed"

    def publisher_of(self, topic: bytes) -> Publisher:
        """The publisher of a frame with `topic`. Raises UnknownPublisherError."""
        if self.pod and self.model:
            return Publisher(self.pod, self.model)
        topic_pod, topic_model = _parse_topic(topic)
        pod = self.pod or self.pod_names.get(topic_pod, topic_pod)
        if not pod:
            raise UnknownPublisherError(
                "unknown_pod",
                f"topic {topic!r} on {self.endpoint} does not name the pod: publish as "
                "kv@<pod>@<model>, or configure the source's pod",
            )
        model = self.model or topic_model or self.default_model
        if not model:
            raise UnknownPublisherError(
                "unknown_model",
                f"topic {topic!r} on {self.endpoint} does not name the model of pod {pod}: "
                "publish as kv@<pod>@<model>, or configure the source's model or a default model",
            )
        publisher = Publisher(pod, model)
        if refusal := self._refusal_of(publisher):
            detail = f"{self.endpoint}: {pod!r} ({model!r}) is not among those configured"
            raise UnknownPublisherError(refusal, detail)
        return publisher


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _at_port(pod: str, offset: int) -> str:
    """The pod whose port is greater by `offset`; the same one if its name has no port."""
    host, separator, port = pod.rpartition(":")
    if not (separator and port.isascii() and port.isdigit()):
        return pod
    return f"{host}:{int(port) + offset}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _parse_topic(topic: bytes) -> tuple[str, str]:
    """The pod and model in a topic `kv@<pod>@<model>`; empty if the topic does not name them."""
    try:
        head, _, rest = topic.decode().partition("@")
    except UnicodeDecodeError:
        return "", ""
    if head != "kv":
        return "", ""
    pod, _, model = rest.partition("@")
    return pod, model
