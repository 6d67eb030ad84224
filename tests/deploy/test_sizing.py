"""The sum of what may take memory is below the memory limit, and SIZING.md says so in numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ByteSize, TypeAdapter
from support.deployed.manifests import COMPONENTS, DEPLOY, OVERLAYS, named, pod_spec, rendered
from support.deployed.workload import Workload

from service.config.configuration import Configuration

PAGE = (DEPLOY / "SIZING.md").read_text()
MIB = 2**20
PROCESS = 110
"""MiB of a process without pods: see SIZING.md."""
GROWTH = 1.05
"""Growth of the process for each byte of the index, with some room."""
BYTES_A_BLOCK = 54
"""In the index, of a block that one pod holds."""
BYTES_IN_VALKEY = 110 + 90
"""Of such a block in the store."""

COLUMNS = {"standalone": 0, "fleet": 0, "sidecar": 1}
CASES = [
    *((name, ()) for name in OVERLAYS),
    ("standalone", tuple(COMPONENTS)),
    ("fleet", tuple(COMPONENTS)),
]


def table() -> dict[str, tuple[int, int]]:
    """The page's sum: two numbers by the words of their row."""
    section = PAGE.split("## The sum")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (\d+) \| (\d+) \|$", section, re.MULTILINE)
    return {name: (int(first), int(second)) for name, first, second in rows}


def parts(configuration: Configuration) -> dict[str, float]:
    """What may take memory, in MiB, by the words of the page."""
    tokenization, events = configuration.tokenization, configuration.events
    return {
        "the process itself": PROCESS,
        "`index.limit`, and 5 %": configuration.index.limit * GROWTH / MIB,
        "`tokenization.memory`": tokenization.memory / MIB,
        "`tokenization.queue_bytes`": tokenization.queue_bytes / MIB,
        "`events.waiting_limit`": events.waiting_limit / MIB,
        "`events.queue_bytes`, of two sources that are behind at once": 2
        * events.queue_bytes
        / MIB,
        "`limits.concurrent_bytes`": configuration.limits.concurrent_bytes / MIB,
        "`routing.memory`, twice: handles, speculative blocks": 2
        * configuration.routing.memory
        / MIB,
    }


def memory(text: str) -> int:
    return TypeAdapter(ByteSize).validate_python(f"{text}B")


@pytest.mark.parametrize(
    ("overlay", "components"), CASES, ids=["+".join([c[0], *c[1]]) for c in CASES]
)
def test_the_limits_add_up_to_less_than_the_memory_limit_as_the_page_says(
    overlay: str, components: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = Workload(rendered(overlay, components), tmp_path)
    counted = parts(workload.configuration(monkeypatch))
    total = round(sum(counted.values()))
    limit = memory(workload.container["resources"]["limits"]["memory"]) // MIB
    assert total <= 0.85 * limit, "something is left for what has no bound"
    said = {name: numbers[COLUMNS[overlay]] for name, numbers in table().items()}
    assert said == {
        **{name: round(value) for name, value in counted.items()},
        "**sum**": total,
        "**memory limit**": limit,
    }


def test_the_page_s_sum_is_that_of_its_rows() -> None:
    rows = table()
    for column in (0, 1):
        values = [numbers[column] for name, numbers in rows.items() if not name.startswith("**")]
        assert sum(values) == rows["**sum**"][column]


def test_the_store_has_room_for_a_full_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = rendered("fleet")
    configuration = Workload(objects, tmp_path).configuration(monkeypatch)
    blocks = configuration.index.limit / BYTES_A_BLOCK
    assert f"({blocks / 1e6:.0f} million) takes {blocks * BYTES_IN_VALKEY / 1e9:.1f} GB" in PAGE
    (container,) = pod_spec(named(objects, "Deployment", "valkey"))["containers"]
    (most,) = re.findall(r"--maxmemory (\d+)gb", container["args"][0])
    assert blocks * BYTES_IN_VALKEY + 64 * MIB < int(most) * 2**30
    assert f"`maxmemory {most}gb`" in PAGE


def test_the_page_says_the_figures_that_the_sums_use() -> None:
    assert f"| a process without pods | {PROCESS} MiB |" in PAGE
    assert f"| a block that one pod holds, with its engine hash | {BYTES_A_BLOCK} bytes |" in PAGE
    (growth,) = re.findall(r"against `index.limit` \| ([\d.]+) times", PAGE)
    assert float(growth) <= GROWTH
