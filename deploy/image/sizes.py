"""Prints what an installation is made of: the size of each distribution, as a Markdown table.

    python deploy/image/sizes.py [SITE-PACKAGES]

Sizes are the bytes of all files, in units of a million, bytecode included.
"""

from __future__ import annotations

import csv
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

SMALL = 1_000_000
"""Distributions below this number of bytes have one line together."""


def sizes(site: Path) -> dict[str, int]:
    """Return the bytes of each distribution in `site`; "other files" are nobody's."""
    owners = {}
    for record in site.glob("*.dist-info/RECORD"):
        name = record.parent.name.partition("-")[0].replace("_", "-").lower()
        with record.open(newline="") as lines:
            owners.update({row[0]: name for row in csv.reader(lines)})
    found: dict[str, int] = defaultdict(int)
    for path in site.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[owners.get(_source(path, site), "other files")] += path.stat().st_size
    return dict(found)


def _source(path: Path, site: Path) -> str:
    """The name of a file in a RECORD; bytecode has that of its source."""
    if path.parent.name == "__pycache__":
        path = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return path.relative_to(site).as_posix()


def table(found: dict[str, int]) -> str:
    """Return the sizes as a table, largest first."""
    large = sorted(
        ((size, name) for name, size in found.items() if size >= SMALL), key=lambda row: -row[0]
    )
    rows = [(name, f"{size / 1e6:.1f}") for size, name in large]
    small = [size for size in found.values() if size < SMALL]
    rows.append((f"{len(small)} smaller ones", f"{sum(small) / 1e6:.1f}"))
    rows.append(("**all**", f"**{sum(found.values()) / 1e6:.1f}**"))
    return "\n".join(["| package | MB |", "|---|---|", *(f"| {n} | {s} |" for n, s in rows)])


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sysconfig.get_path("purelib"))
    print(table(sizes(given)))
