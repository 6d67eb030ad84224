"""What a servicer learns and says about a call, as with grpc.aio's context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from typing_extensions import override

from service.listening.http2.wire.header_blocks import encode
from service.listening.native.headers import headers_of, message_of
from service.listening.native.messages import ENCODINGS, prefix_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Iterable

    from service.listening.http2.stream import Stream
    from service.listening.native.headers import CallHeaders

_START = [(b"content-type", b"application/grpc"), (b"grpc-accept-encoding", ENCODINGS)]
_START_BLOCK = encode(_START, begins=True)
_OK_BLOCK = encode([(b"grpc-status", b"0")], begins=False)
_SMALL = 16 * 1024  # a message is copied behind its prefix up to here
_OK = grpc.StatusCode.OK


def refuse(stream: Stream, status: grpc.StatusCode, text: str, *, http_status: int = 200) -> None:
    """End a call whose message is not read."""
    if http_status != 200:
        stream.send_headers(encode([(b":status", b"%d" % http_status)], begins=False), ends=True)
    else:
        trailers = [*_START, *_status(status, text, ())]
        stream.send_headers(encode(trailers, begins=True), ends=True)


def _status(
    status: grpc.StatusCode, text: str, metadata: Iterable[tuple[str, str | bytes]]
) -> list[tuple[bytes, bytes]]:
    number, _ = status.value
    headers = [(b"grpc-status", b"%d" % number)]
    if text:
        headers.append((b"grpc-message", message_of(text)))
    return headers + headers_of(metadata)


class CallContext(grpc.aio.ServicerContext[Any, Any]):
    """One call: its metadata and deadline, and its answer as far as that is sent.

    Args:
        stream: the request and the response.
        headers: what those of the request mean.
        deadline: by the clock of the event loop; None: the caller waits for ever.
    """

    task: asyncio.Task[None]
    """Runs the call."""
    requests: AsyncIterator[Any]
    """Where the caller sends many."""

    def __init__(self, stream: Stream, headers: CallHeaders, deadline: float | None) -> None:
        self.stream = stream
        self.headers = headers
        self.was_stopped = False
        """Whether the call was cancelled here, with a status."""
        self._deadline = deadline
        self._code = _OK
        self._details = ""
        self._trailing: Iterable[tuple[str, str | bytes]] = ()
        self._has_started = False

    # What a servicer asks

    @override
    def invocation_metadata(self) -> Any:
        return self.headers.metadata()

    @override
    def time_remaining(self) -> float | None:  # type: ignore[override]
        if self._deadline is None:
            return None
        return max(0.0, self._deadline - self.stream.connection.loop.time())

    @override
    def peer(self) -> str:
        peer: Any = self.stream.connection.peer
        if not isinstance(peer, tuple):
            return "unix:"
        host, port = peer[:2]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    @override
    def peer_identities(self) -> Any:
        return None

    @override
    def peer_identity_key(self) -> Any:
        return None

    @override
    def auth_context(self) -> Any:
        return {}

    def cancelled(self) -> bool:
        """Whether the caller does not wait for the answer any more."""
        return self.stream.is_reset

    def code(self) -> Any:
        """The status, as set so far."""
        return self._code

    def details(self) -> str:
        """The text of the status, as set so far."""
        return self._details

    def trailing_metadata(self) -> Any:
        """The metadata after the answer, as set so far."""
        return self._trailing

    # What a servicer says

    @override
    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Any = (),
    ) -> NoReturn:
        self.end_with(code, details)
        if trailing_metadata:
            self._trailing = trailing_metadata
        raise grpc.aio.AbortError(details)

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with a status."""
        await self.abort(status.code, status.details, status.trailing_metadata)

    @override
    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = trailing_metadata

    @override
    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    @override
    def set_details(self, details: str) -> None:
        self._details = details

    @override
    def set_compression(self, compression: grpc.Compression) -> None:
        """Answers are not compressed, as the protocol allows."""

    @override
    def disable_next_message_compression(self) -> None:
        """Nothing is compressed."""

    @override
    async def read(self) -> Any:
        """Return the next request of many; `grpc.aio.EOF` after the last one.

        Raises CancelledError if the call is over.
        """
        try:
            return await anext(self.requests)
        except StopAsyncIteration:
            return grpc.aio.EOF

    @override
    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        if self._has_started:
            raise RuntimeError("the answer has begun")
        self._has_started = True
        block = _START_BLOCK + encode(headers_of(initial_metadata), begins=False)
        self.stream.send_headers(block, ends=False)

    @override
    async def write(self, message: bytes) -> None:
        """Send an encoded message. Waits while the caller has no room for it."""
        if not self._has_started:
            await self.send_initial_metadata(())
        prefix = prefix_of(len(message))
        if len(message) > _SMALL:
            await self.stream.send_data(prefix)
            await self.stream.send_data(message)
        else:
            await self.stream.send_data(prefix + message)

    # What the runner of the call says

    def stop(self, code: grpc.StatusCode, details: str) -> None:
        """Cancel the call, such that it ends with this status."""
        self.end_with(code, details)
        self.was_stopped = True
        self.task.cancel()

    def end_with(self, code: grpc.StatusCode, details: str) -> None:
        """Set the status and its text."""
        self._code, self._details = code, details

    async def answer(self, message: bytes) -> None:
        """Send the one answer; with the status at once if the caller has room for both."""
        if not self._has_started and len(message) <= _SMALL:
            after = _OK_BLOCK
            if self._code is not _OK or self._trailing:
                after = encode(_status(self._code, self._details, self._trailing), begins=False)
            data = prefix_of(len(message)) + message
            if self.stream.send_at_once(_START_BLOCK, data, after):
                return
        await self.write(message)

    def finish(self) -> None:
        """Send the status, unless that was done or nobody waits for it."""
        stream = self.stream
        if stream.is_reset or stream.is_closed:
            return
        if self._code is _OK and not self._details and not self._trailing and self._has_started:
            stream.send_headers(_OK_BLOCK, ends=True)
            return
        status = _status(self._code, self._details, self._trailing)
        begins = not self._has_started  # then the status is in the one header block there is
        stream.send_headers(
            encode([*_START, *status] if begins else status, begins=begins), ends=True
        )
