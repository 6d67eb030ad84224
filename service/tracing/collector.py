"""Sends spans to a collector: OTLP over HTTP, in the binary form.

The exporter of OpenTelemetry is not used. It takes headers and certificates from OTEL_ variables
that are meant for others, cannot read a token that is replaced, counts a redirection as success,
and its shutdown waits for an answer that may not come.
"""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.metadata import version
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from service.config import read_headers, read_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from service.config import TracesSection

_ANSWER_BYTES = 64 * 1024
_FAST = 1  # the level of compression: spans repeat each other
_PASSING = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


class CollectorError(Exception):
    """The collector has not taken the spans.

    Attributes:
        reason: as the metric names it.
        passes: whether it may take them later.
    """

    def __init__(self, reason: str, text: str, *, passes: bool) -> None:
        super().__init__(text)
        self.reason = reason
        self.passes = passes


class Collector:
    """A collector, as one thread sends to it."""

    def __init__(self, section: TracesSection) -> None:
        """Raises OSError if the certificates cannot be read."""
        self._section = section
        self._url = urlsplit(section.url)
        self._tls = None
        if self._url.scheme == "https":
            self._tls = ssl.create_default_context(cafile=section.ca_file)
        self._connection: HTTPConnection | None = None
        self._was_aborted = False

    def send(self, spans: Sequence[ReadableSpan]) -> int:
        """Send spans; return how many of them the collector has rejected. Raises CollectorError."""
        body = gzip.compress(encode_spans(spans).SerializeToString(), _FAST)
        # The timeout of a socket begins anew with each byte. This one does not.
        self._was_aborted = False
        timer = threading.Timer(self._section.timeout_seconds, self.abort)
        timer.daemon = True
        timer.start()
        try:
            status, answer = self._post(body)
        except (OSError, HTTPException, ValueError) as error:
            late = self._was_aborted or isinstance(error, TimeoutError)
            reason, text = "unreachable", f"{type(error).__name__}: {error}"
            if late:
                reason, text = "timeout", f"no answer in {self._section.timeout_seconds} seconds"
            raise CollectorError(reason, text, passes=True) from error
        finally:
            timer.cancel()
        if status // 100 != 2:
            text = f"the collector answers {status}"
            raise CollectorError("refused", text, passes=status in _PASSING)
        return _rejected(answer)

    def abort(self) -> None:
        """Let `send` fail, from another thread."""
        self._was_aborted = True
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """Raises OSError, HTTPException, ValueError if a file of credentials is unusable by now."""
        headers = self._headers()
        connection = self._connection = self._connect()
        try:
            connection.request("POST", self._url.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(_ANSWER_BYTES)
        finally:
            self._connection = None
            connection.close()

    def _connect(self) -> HTTPConnection:
        host, port = self._url.hostname or "", self._url.port
        timeout = self._section.timeout_seconds
        if self._tls is not None:
            return HTTPSConnection(host, port, timeout=timeout, context=self._tls)
        return HTTPConnection(host, port, timeout=timeout)

    def _headers(self) -> dict[str, str]:
        """Return the headers of a request; files are read each time, as they may be replaced."""
        section, headers = self._section, {}
        if section.headers_file is not None:
            headers.update(read_headers(section.headers_file))
        if section.token_file is not None:
            token = read_tokens(section.token_file)[0].decode()
            headers["authorization"] = f"Bearer {token}"
        return {
            **headers,
            "content-type": "application/x-protobuf",
            "content-encoding": "gzip",
            "user-agent": f"kvatlas/{version('kvatlas')}",
        }


def _rejected(answer: bytes) -> int:
    """Return how many spans were rejected, according to the answer to a request."""
    try:
        return ExportTraceServiceResponse.FromString(answer).partial_success.rejected_spans
    except DecodeError:  # 2xx is success, whatever the body is
        return 0
