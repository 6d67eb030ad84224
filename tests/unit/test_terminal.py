"""What others have named reaches a terminal only written out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import structlog
from kvatlas.v1 import fleet_pb2, scoring_pb2

from service.cli.screen import answers
from service.cli.screen.tables import as_text
from service.config import LogSection
from service.logs import configure_logs
from service.terminal import complain, printable

WEIRD = "a\x1b[2J\x1b]0;title\x07\x9b31m\u202eb\nc\td\u200b"
"""Clears the screen, names the window, colours, turns the text around, begins a line."""


def commands(text: str) -> list[str]:
    """The characters that a terminal obeys."""
    return [c for c in text if not c.isprintable() and c != "\n"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("10.0.0.1:8000", "10.0.0.1:8000"),
        ("modèle-模型", "modèle-模型"),
        ("\x1b[31m", "\\x1b[31m"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("a\nb\r", "a\\nb\\r"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_text_of_several_lines_keeps_them_and_nothing_else() -> None:
    assert printable("a\n\tb\r\x1b", lines=True) == "a\n\tb\\r\\x1b"


def test_tables_and_messages_show_weird_names_in_one_line_each() -> None:
    pod = scoring_pb2.PodScore(pod=WEIRD, trust_reason=WEIRD, matched_blocks_by_tier={WEIRD: 1})
    answer = scoring_pb2.ScoreResponse(pods=[pod], unknown_pods=[WEIRD])
    rank = fleet_pb2.Rank(skipped={WEIRD: 2}, owner=WEIRD)
    warning = fleet_pb2.FleetWarning(kind=WEIRD, model=WEIRD, detail=WEIRD)
    shared = fleet_pb2.SharedIndex(replica=WEIRD, live_replicas=[WEIRD], store_failure=WEIRD)
    listed = fleet_pb2.ListPodsResponse(
        pods=[fleet_pb2.Pod(pod=WEIRD, model=WEIRD, ranks=[rank])],
        warnings=[warning],
        shared_index=shared,
    )
    scores, pods = as_text(*answers.scores(answer)), as_text(*answers.pods(listed))
    assert commands(scores) == commands(pods) == []
    assert (len(scores.splitlines()), len(pods.splitlines())) == (4, 4)
    assert "a\\x1b[2J" in scores


def test_complaints_show_weird_texts_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain(WEIRD)
    said = capsys.readouterr().err
    assert commands(said) == []
    assert said.count("\n") == 1


@pytest.fixture(autouse=True)
def default_logs() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_log_shows_weird_names_and_errors_written_out(
    capsys: pytest.CaptureFixture[str], form: str
) -> None:
    configure_logs(LogSection(format=form))
    logger = structlog.get_logger()
    logger.info("pod_joined", pod=WEIRD, pods=[WEIRD], counts={WEIRD: 1})
    try:
        raise ValueError(WEIRD)
    except ValueError:
        logger.exception("failed")
    shown = capsys.readouterr().err
    assert "pod_joined" in shown
    ours = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # the log's own colours
    assert set(commands(ours)) <= {"\t"}  # a traceback keeps its lines
