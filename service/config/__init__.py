"""The configuration: passive, frozen, and valid as a whole.

configuration    all sections together; loads them from file, environment and flags
sections         what can be set, its bounds and defaults
limits           the section about limits of requests
listening        the sections about gRPC: addresses, credentials, connections
models           the sections about models: tokenizers and chat templates
events           the sections about events: sources and limits
client           how client commands reach a service
section          what all sections have in common
addresses        host:port or unix:/path: well-formed, local, colliding
paths            paths that must lead somewhere
environment      variables that nothing reads
credentials      reads certificates and tokens
"""

from __future__ import annotations

from service.config.client import ClientConfiguration, ClientSection
from service.config.configuration import (
    Configuration,
    ConfigurationError,
    ignored_variables,
    load,
    load_client,
)
from service.config.credentials import Certificates, read_tokens
from service.config.limits import LimitsSection
from service.config.listening import AdminSection, GrpcSection, ListenerSection
from service.config.sections import LogSection, RoutingSection, StoreSection

__all__ = [
    "AdminSection",
    "Certificates",
    "ClientConfiguration",
    "ClientSection",
    "Configuration",
    "ConfigurationError",
    "GrpcSection",
    "LimitsSection",
    "ListenerSection",
    "LogSection",
    "RoutingSection",
    "StoreSection",
    "ignored_variables",
    "load",
    "load_client",
    "read_tokens",
]
