"""What all sections of the configuration have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the configuration. Frozen; refuses unknown settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")
