"""TODO map."""

from __future__ import annotations

from service.config.configuration import Configuration, ConfigurationError, load
from service.config.sections import LimitsSection, LogSection, StoreSection

__all__ = [
    "Configuration",
    "ConfigurationError",
    "LimitsSection",
    "LogSection",
    "StoreSection",
    "load",
]
