"""The configuration: passive, frozen, and valid as a whole.

configuration    all sections together; loads them from file, environment and flags
sections         what can be set, its bounds and defaults
limits           the section about limits of requests
models           the sections about models: tokenizers and chat templates
events           the sections about events: sources and limits
"""

from __future__ import annotations

from service.config.configuration import Configuration, ConfigurationError, load
from service.config.limits import LimitsSection
from service.config.sections import LogSection, StoreSection

__all__ = [
    "Configuration",
    "ConfigurationError",
    "LimitsSection",
    "LogSection",
    "StoreSection",
    "load",
]
