"""Structured logs on standard error: for people on a terminal, as JSON elsewhere."""

from __future__ import annotations

import io
import logging
import sys
from functools import partial
from typing import TYPE_CHECKING, TextIO

import structlog

from service.terminal import printable

if TYPE_CHECKING:
    from service.config import LogSection


def configure_logs(section: LogSection, *, process: int | None = None) -> None:
    """Set the process's log level and format.

    process: its number, if it is one of several that log to the same place.
    """
    human = section.format == "human" or (section.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=_traceback)
        if human
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,  # the trace of a traced call
        *([] if process is None else [partial(_add_process, process)]),
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    processors.append(_printable_values if human else structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[section.level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),  # a line at once: others log, too
    )


def _add_process(
    process: int, _logger: object, _method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {**entry, "process": process}


def _printable_values(
    _logger: object, _method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Names come off the wire: JSON escapes them by itself, a terminal would obey them."""
    return {
        key: printable(value) if isinstance(value, str) else value for key, value in entry.items()
    }


def _traceback(stream: TextIO, exc_info: structlog.typing.ExcInfo) -> None:
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exc_info)
    stream.write(printable(text.getvalue(), lines=True))
