"""Tables for a terminal, or for another program.

Everything that is shown comes from others: neither a terminal nor rich's markup obeys it.
"""

from __future__ import annotations

import sys
from itertools import starmap
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console, Group
from rich.table import Table as RichTable
from rich.text import Text

from service.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

_GAP = 2
_PROSE = 100
_NARROW = 12
"""Width to which a column of words can be folded."""

STYLES = {
    "exact": "green",
    "partial": "yellow",
    "recovering": "yellow",
    "degraded": "red",
    "stale": "red",
    "unknown": "dim",
}
"""Trust state -> how it is shown."""


class Table:
    """Rows under a header. Columns of numbers are aligned right, others left."""

    def __init__(self, *header: str, folded: Sequence[str] = (), trust: str = "") -> None:
        self._header = header
        self._folded = folded
        self._trust = trust
        self._rows: list[list[str]] = []

    def add(self, *cells: str) -> None:
        """Add a row."""
        self._rows.append([printable(cell) for cell in cells])

    def render(self, room: int | None) -> RichTable:
        """The table for a terminal of this width; None: as wide as it needs to be.

        A table that cannot be folded to the width is as wide as it needs to be.
        """
        columns = list(zip(self._header, *self._rows, strict=True))
        widths = [max(map(cell_len, column)) for column in columns]
        least = [
            min(width, _NARROW) if name in self._folded else width
            for name, width in zip(self._header, widths, strict=True)
        ]
        gaps = _GAP * (len(columns) - 1)
        is_foldable = room is not None and sum(least) + gaps <= room
        shown = RichTable(
            box=None,
            pad_edge=False,
            padding=(0, _GAP, 0, 0),
            header_style="bold",
            width=None if is_foldable else sum(widths) + gaps,
        )
        for name, cells, width in zip(self._header, columns, least, strict=True):
            shown.add_column(
                name,
                justify="right" if all(map(_is_number, cells[1:])) else "left",
                overflow="fold",
                no_wrap=name not in self._folded,
                min_width=width,
            )
        for row in self._rows:
            shown.add_row(*starmap(self._cell, zip(self._header, row, strict=True)))
        return shown

    def _cell(self, name: str, cell: str) -> Text:
        style = STYLES.get(cell.partition(" ")[0], "") if name == self._trust else ""
        return Text(cell, style)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).replace(",", "").isdigit() or cell == "-"


class Heading(str):
    """A line above others."""

    __slots__ = ()


Part = str | Table
"""A text of one or several lines, or a table."""


def show(*parts: Part) -> None:
    """Print the parts, one below the other."""
    print(_rendered(_console(), parts))


def as_text(*parts: Part) -> str:
    """The parts as another program reads them."""
    return _rendered(Console(no_color=True, force_terminal=False), parts)


def width() -> int:
    """How wide lines of prose may be."""
    console = _console()
    return min(console.width, _PROSE) if console.is_terminal else _PROSE


def picture(*parts: Part, room: int | None) -> RenderableType:
    """The parts for rich to show."""
    return Group(
        *(
            part.render(room)
            if isinstance(part, Table)
            else Text(printable(part, lines=True), no_wrap=True)
            for part in parts
        )
    )


def _console() -> Console:
    return Console(file=sys.stdout, markup=False, highlight=False, emoji=False)


def _rendered(console: Console, parts: Sequence[Part]) -> str:
    room = console.width if console.is_terminal else None
    return "\n".join(_part_text(console, part, room) for part in parts)


def _part_text(console: Console, part: Part, room: int | None) -> str:
    if isinstance(part, Table):
        return _table_text(console, part.render(room), room)
    if isinstance(part, Heading):
        with console.capture() as capture:
            console.print(Text(printable(part), "bold"), soft_wrap=True, end="")
        return capture.get()
    return printable(part, lines=True)


def _table_text(console: Console, table: RichTable, room: int | None) -> str:
    with console.capture() as capture:
        console.print(table, crop=False, width=table.width or room)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
