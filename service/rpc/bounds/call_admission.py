"""How many calls are under way at once: in total, of one tenant, and by the bytes they hold."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from service.rpc.errors import TooBusyError

if TYPE_CHECKING:
    import grpc

    from service.config import LimitsSection

LARGE_BYTES = 256 * 1024
"""A request with more bytes is large: decoding it alone takes a noticeable part of a millisecond.

Large requests may fill only half of `limits.concurrent_bytes`, so that they leave room for others.
"""


class CallAdmission:
    """Counts the calls under way."""

    def __init__(self, limits: LimitsSection) -> None:
        self._limits = limits
        self._calls = 0
        self._bytes = 0
        self.tenants: Counter[str] = Counter()
        """How many calls of each tenant are under way."""

    def tenant_of(self, context: grpc.aio.ServicerContext[Any, Any]) -> str:
        """Return the tenant that the caller names; empty if it names none, or none is asked for."""
        key = self._limits.tenant_key
        if key:
            for name, value in context.invocation_metadata() or ():
                if name == key:
                    return value if isinstance(value, str) else value.decode(errors="replace")
        return ""

    def enter(self, size: int, tenant: str) -> None:
        """Count a call as under way until `leave`, which is called with the same arguments.

        Args:
            size: bytes of its request.
            tenant: see `tenant_of`.

        Raises:
            TooBusyError: there are too many already. The call is not counted.
        """
        limits = self._limits
        if self._calls >= limits.concurrent_calls:
            raise TooBusyError(
                f"{self._calls} calls are under way, as many as there may be", "concurrent_calls"
            )
        room = limits.concurrent_bytes // (2 if size > LARGE_BYTES else 1)
        if self._bytes + size > room and self._bytes:
            raise TooBusyError(
                f"the requests under way have {self._bytes} bytes, and this one has {size}",
                "concurrent_bytes",
            )
        if tenant:
            if self.tenants[tenant] >= limits.concurrent_calls_per_tenant:
                raise TooBusyError(
                    "as many calls of this tenant are under way as there may be",
                    "concurrent_calls_per_tenant",
                )
            self.tenants[tenant] += 1
        self._calls += 1
        self._bytes += size

    def leave(self, size: int, tenant: str) -> None:
        """Count a call as over."""
        self._calls -= 1
        self._bytes -= size
        if tenant:
            self.tenants[tenant] -= 1
            if not self.tenants[tenant]:
                del self.tenants[tenant]
