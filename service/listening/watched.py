"""Files that are read again when they change: credentials are replaced while the service runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_log = structlog.get_logger("kvatlas.service")

_Content = TypeVar("_Content")


class WatchedFiles(Generic[_Content]):
    """What some files contain, and whether they have changed.

    Args:
        name: of the setting, for the log.
        files: the files.
        read: reads them all. Raises OSError or ValueError: then what was read before remains.
        every_seconds: how often to look, at most.
    """

    def __init__(
        self,
        name: str,
        files: list[Path],
        read: Callable[[], _Content],
        every_seconds: float,
    ) -> None:
        self._name = name
        self._files = files
        self._read = read
        self._every = every_seconds
        self._seen = self._versions()
        self._next_look = time.monotonic() + every_seconds
        self._content = read()

    @property
    def content(self) -> _Content:
        """What the files contained when they were last read with success."""
        self.has_changed()
        return self._content

    def has_changed(self) -> bool:
        """Look at the files, and read them if they are others than before."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + self._every
        versions = self._versions()
        if versions == self._seen:
            return False
        self._seen = versions
        try:
            self._content = self._read()
        except (OSError, ValueError) as error:
            _log.error("credentials_unusable", setting=self._name, detail=str(error))
            return False
        _log.info("credentials_read", setting=self._name)
        return True

    def _versions(self) -> list[tuple[int, int, int] | None]:
        return [_version(file) for file in self._files]


def _version(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino, status.st_size)
