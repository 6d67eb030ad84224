"""What a listener's connections may do, as options of gRPC's core."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.listening.transport import ListenerSettings

_METADATA_BYTES = 16 * 1024
_DEAD_AFTER_SECONDS = (60, 20)  # of silence; then without an answer to a ping
_LONGEST_GRACE = 10.0


def server_options(settings: ListenerSettings) -> list[tuple[str, int]]:
    """The options of a server."""
    section = settings.bounds
    silence, answer = _DEAD_AFTER_SECONDS
    options = [
        ("grpc.max_receive_message_length", min(settings.request_bytes, 2**31 - 1)),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", section.connections),
        ("grpc.max_concurrent_streams", section.calls_per_connection),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", _milliseconds(section.handshake_seconds)),
        # Clients ping to keep a connection through proxies, also between calls.
        ("grpc.http2.min_ping_interval_without_data_ms", _milliseconds(section.ping_seconds)),
        ("grpc.keepalive_permit_without_calls", 1),
        # A client that has vanished without a word holds its calls no longer than this.
        ("grpc.keepalive_time_ms", _milliseconds(silence)),
        ("grpc.keepalive_timeout_ms", _milliseconds(answer)),
    ]
    if section.idle_seconds:
        options.append(("grpc.max_connection_idle_ms", _milliseconds(section.idle_seconds)))
    if settings.ages and section.connection_age_seconds:  # give or take a tenth
        grace = max(section.drain_seconds, _LONGEST_GRACE)
        options += [
            ("grpc.max_connection_age_ms", _milliseconds(section.connection_age_seconds)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(grace)),
        ]
    return options


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
