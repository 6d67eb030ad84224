"""How long a test waits for a condition before it fails: long, as a busy machine is slow."""

from __future__ import annotations

DEADLINE_SECONDS = 60.0
