"""Where the repository and the recorded data lie."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The root of the repository."""

DATA = ROOT / "tests" / "data"
"""Recorded traces, payloads and requests."""
