"""Answers of the service, as commands show them."""

from __future__ import annotations

from kvatlas.v1 import fleet_pb2

from service.cli.screen.answers import pods
from service.cli.screen.tables import Table


def rows(answer: fleet_pb2.ListPodsResponse) -> list[dict[str, str]]:
    """The rows of the table of pods, by column."""
    (table,) = pods(answer)
    assert isinstance(table, Table)
    return [dict(zip(table._header, row, strict=True)) for row in table._rows]


def test_pods_show_what_was_promised_and_delivered_once_outcomes_are_reported() -> None:
    answer = fleet_pb2.ListPodsResponse()
    pod = answer.pods.add(pod="a:1", model="m")
    pod.ranks.add(rank=0)
    (row,) = rows(answer)
    assert "DELIVERED" not in row
    pod.ranks.add(rank=1).delivered.outcomes = 2
    pod.ranks.add(rank=2).delivered.MergeFrom(
        fleet_pb2.DeliveredTokens(
            outcomes=4, promised_tokens=200, delivered_tokens=300, missing_tokens=50
        )
    )
    assert [row["DELIVERED"] for row in rows(answer)] == ["-", "100% of 0 in 2", "75% of 200 in 4"]
