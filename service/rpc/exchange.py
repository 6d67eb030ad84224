"""The messages of one call that both sides send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import grpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class CallerLeftError(Exception):
    """A message cannot be sent, as nobody waits for it."""


class MessageExchange:
    """Reads what the caller sends, and writes answers, each as encoded messages.

    Args:
        context: of the call.
        tenant: whom the calls count for, see `CallAdmission.tenant_of`.
        method: full name of the method.
    """

    def __init__(self, context: Context, tenant: str, method: str) -> None:
        self._context = context
        self._writing = asyncio.Lock()
        self.tenant = tenant
        self.method = method

    async def read(self) -> bytes | None:
        """Return the next message; None if the caller sends no more."""
        raw = await self._context.read()
        return None if raw is grpc.aio.EOF else cast("bytes", raw)

    async def write(self, raw: bytes) -> None:
        """Send a message. This waits for a caller who does not read what was sent before.

        Raises:
            CallerLeftError: the caller has gone.
        """
        async with self._writing:
            try:
                await self._context.write(raw)
            except Exception as error:  # each transport has its own
                raise CallerLeftError from error
