"""Who speaks: the source of frames as configured, and the pod and model a frame comes from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from kvevents.wire import ExtraStrings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from indexer import Worker

_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")


class Publisher(NamedTuple):
    """The pod that published a frame, and the model it serves."""

    pod: str
    model: str


class UnknownPublisherError(ValueError):
    """A frame whose pod or model cannot be told; `reason` is one of a few words, for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Source:
    """One SUB socket: where it listens, and how its frames tell who speaks.

    endpoint: a ZMQ address. bind: listen there for pods that connect, instead of connecting.
    topic: prefix filter; empty for everything.
    pod: the pod behind the endpoint (connect); empty: the topic says it.
    model: the model served; empty: the topic says it, else default_model.
    rank: the data-parallel rank, if the payloads are not to say it.
    pod_names: topic's pod name -> the name callers use (`ip:port`).
    replay: ZMQ address of the engine's replay socket, or empty. With `{host}` in it, that of the
        pod's name is meant, and the port is that of rank 0: further ranks add theirs to it.
    """

    endpoint: str
    bind: bool = False
    topic: str = ""
    pod: str = ""
    model: str = ""
    rank: int | None = None
    default_model: str = ""
    pod_names: Mapping[str, str] = field(default_factory=dict)
    extra_strings: ExtraStrings = ExtraStrings.AUTO
    replay: str = ""

    def replay_endpoint(self, worker: Worker) -> str | None:
        """Where frames of `worker` can be asked for again, or None."""
        if "{host}" not in self.replay:
            return self.replay or None
        host, _, _ = worker.pod.rpartition(":")
        host = host or worker.pod
        if not _HOST.fullmatch(host):  # names come off the wire
            return None
        address, _, port = self.replay.replace("{host}", host).rpartition(":")
        return f"{address}:{int(port) + worker.rank}"

    def could_publish(self, pod: str, model: str) -> bool:
        """Whether `pod` with `model` may speak here, as far as the source says who does."""
        return self.pod in ("", pod) and self.model in ("", model)

    def publisher_of(self, topic: bytes) -> Publisher:
        """Who published a frame with `topic`. Raises UnknownSpeakerError."""
        if self.pod and self.model:
            return Publisher(self.pod, self.model)
        said_pod, said_model = _parse_topic(topic)
        pod = self.pod or self.pod_names.get(said_pod, said_pod)
        if not pod:
            raise UnknownPublisherError(
                "unknown_pod",
                f"topic {topic!r} on {self.endpoint} does not say which pod speaks: publish as "
                "kv@<pod>@<model>, or configure the source's pod",
            )
        model = self.model or said_model or self.default_model
        if not model:
            raise UnknownPublisherError(
                "unknown_model",
                f"topic {topic!r} on {self.endpoint} does not say which model pod {pod} serves: "
                "publish as kv@<pod>@<model>, or configure the source's model or a default model",
            )
        return Publisher(pod, model)


def _parse_topic(topic: bytes) -> tuple[str, str]:
    """Pod and model of a topic `kv@<pod>@<model>`; empty strings for what it does not say."""
    try:
        head, _, rest = topic.decode().partition("@")
    except UnicodeDecodeError:
        return "", ""
    if head != "kv":
        return "", ""
    pod, _, model = rest.partition("@")
    return pod, model
