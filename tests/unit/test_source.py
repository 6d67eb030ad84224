"""Where a source's frames come from, and whom it lets speak."""

from __future__ import annotations

import pytest

from indexer import Worker
from kvevents import Source

TO_PEERS = Source("tcp://*:5557", bind=True, replay="tcp://{host}:5558")
TO_NAMES = Source(
    "tcp://*:5557",
    bind=True,
    replay="tcp://{host}:5558",
    replay_hosts=("*.pods.internal", "10.1.*"),
)


@pytest.mark.parametrize(
    ("source", "pod", "peer", "endpoint"),
    [
        (TO_PEERS, "10.0.0.1:8000", "10.0.0.1", "tcp://10.0.0.1:5560"),
        (TO_PEERS, "vllm-0:8000", "10.0.0.1", "tcp://10.0.0.1:5560"),
        (TO_PEERS, "metadata.internal:80", "10.0.0.1", "tcp://10.0.0.1:5560"),
        (TO_PEERS, "10.0.0.2:8000", "10.0.0.1", "tcp://10.0.0.1:5560"),
        (TO_PEERS, "10.0.0.1:8000", "fd00::7", "tcp://[fd00::7]:5560"),
        (TO_PEERS, "127.0.0.3:8000", "127.0.0.1", "tcp://127.0.0.3:5560"),
        (TO_PEERS, "127.0.0.1:8000", "10.0.0.1", "tcp://10.0.0.1:5560"),
        (TO_PEERS, "10.0.0.1:8000", "", None),
        (TO_NAMES, "a.pods.internal:8000", "10.0.0.1", "tcp://a.pods.internal:5560"),
        (TO_NAMES, "10.1.2.3:8000", "", "tcp://10.1.2.3:5560"),
        (TO_NAMES, "10.2.2.3:8000", "10.0.0.1", "tcp://10.0.0.1:5560"),
        (TO_NAMES, "10.1.2.3/x:8000", "10.0.0.1", None),
    ],
)
def test_a_name_off_the_wire_decides_only_with_leave_which_host_is_asked(
    source: Source, pod: str, peer: str, endpoint: str | None
) -> None:
    assert source.replay_endpoint(Worker(pod, 2), peer) == endpoint
