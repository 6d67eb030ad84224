"""Tables fit their terminal, and show what others have named as it is."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from service.cli.screen.tables import Heading, Table, as_text, picture

MARKUP = "[bold red]pod[/] :boom: [link=http://x]y[/link]"
ESCAPES = "\x1b[2J\x9b31m\u202e"


def on_terminal(table: Table, width: int) -> list[str]:
    """The lines that a terminal of this width is sent, without the styles of the table itself."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, markup=False, emoji=False)
    console.print(picture(table, room=width), crop=False, width=width)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue())
    return [line.rstrip() for line in plain.splitlines()]


def sample() -> Table:
    table = Table("POD", "COUNT", "WORDS", folded=("WORDS",))
    table.add("10.0.0.1:8000", "1,000", "a word and another " * 4)
    table.add("b", "-", "-")
    return table


def test_for_another_program_a_table_is_as_wide_as_its_cells() -> None:
    words = ("a word and another " * 4).rstrip()
    assert as_text(sample(), "end").splitlines() == [
        "POD            COUNT  WORDS",
        f"10.0.0.1:8000  1,000  {words}",
        "b                  -  -",
        "end",
    ]


def test_on_a_terminal_only_the_columns_of_words_are_folded() -> None:
    lines = on_terminal(sample(), 50)
    assert max(map(len, lines)) <= 50
    assert lines[1].startswith("10.0.0.1:8000  1,000  a word")
    assert " ".join(" ".join(lines).split()).count("another") == 4


def test_on_a_terminal_that_is_too_narrow_nothing_is_left_out() -> None:
    lines = as_text(sample()).splitlines()
    assert "10.0.0.1:8000" in "".join(on_terminal(sample(), 20)).replace("\n", "")
    assert "10.0.0.1:8000" in lines[1]


@pytest.mark.parametrize("name", [MARKUP, ESCAPES, "a\nb"])
def test_neither_markup_nor_escapes_in_a_cell_are_obeyed(name: str) -> None:
    table = Table("POD", "TRUST", trust="TRUST")
    table.add(name, name)
    shown = [as_text(table), "\n".join(on_terminal(table, 200))]
    for text in shown:
        assert len(text.splitlines()) == 2
        assert all(c.isprintable() or c == "\n" for c in text)
    if name == MARKUP:
        assert all(MARKUP in text for text in shown)


def test_a_text_keeps_its_lines_and_spaces_and_a_heading_its_one() -> None:
    assert as_text("a  \n  b\t.", Heading("[bold]x[/]\x1b")) == "a  \n  b\t.\n[bold]x[/]\\x1b"
