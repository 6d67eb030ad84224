"""The configuration: passive, frozen, and valid as a whole.

configuration    all sections together
layers           loads them from file, environment and flags
sections         what can be set, its bounds and defaults
limits           the section about limits of requests
listening        the sections about gRPC: addresses, credentials, connections
models           the sections about models: tokenizers and chat templates
events           the sections about events: sources and limits
client           the section about clients: how they reach a service
discovery        the sections about pods that are found
section          what all sections have in common
addresses        host:port or unix:/path: well-formed, local, colliding
paths            paths that must lead somewhere
credentials      reads certificates and tokens

Each name is imported when it is first used: a client command needs none of the sections, and has no
time for them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.config.client import ClientSection
    from service.config.configuration import (
        Configuration,
        ConfigurationError,
        ignored_variables,
        load,
        load_with_origins,
    )
    from service.config.credentials import (
        Certificates,
        read_authorities,
        read_certificates,
        read_headers,
        read_tokens,
    )
    from service.config.discovery import DiscoverySection, pod_url
    from service.config.layers.client import ClientSettings, load_client
    from service.config.layers.loading import Flag, Loaded, without_password
    from service.config.layers.settings import Setting, settings_of
    from service.config.limits import LimitsSection
    from service.config.listening import AdminSection, GrpcSection, ListenerSection
    from service.config.sections import LogSection, RoutingSection, StoreSection, TracesSection

_HOMES = {
    "client": ["ClientSection"],
    "configuration": ["Configuration", "ignored_variables", "load", "load_with_origins"],
    "credentials": [
        "Certificates",
        "read_authorities",
        "read_certificates",
        "read_headers",
        "read_tokens",
    ],
    "discovery": ["DiscoverySection", "pod_url"],
    "layers.client": ["ClientSettings", "load_client"],
    "layers.faults": ["ConfigurationError"],
    "layers.loading": ["Flag", "Loaded", "without_password"],
    "layers.settings": ["Setting", "settings_of"],
    "limits": ["LimitsSection"],
    "listening": ["AdminSection", "GrpcSection", "ListenerSection"],
    "sections": ["LogSection", "RoutingSection", "StoreSection", "TracesSection"],
}

__all__ = [
    "AdminSection",
    "Certificates",
    "ClientSection",
    "ClientSettings",
    "Configuration",
    "ConfigurationError",
    "DiscoverySection",
    "Flag",
    "GrpcSection",
    "LimitsSection",
    "ListenerSection",
    "Loaded",
    "LogSection",
    "RoutingSection",
    "Setting",
    "StoreSection",
    "TracesSection",
    "ignored_variables",
    "load",
    "load_client",
    "load_with_origins",
    "pod_url",
    "read_authorities",
    "read_certificates",
    "read_headers",
    "read_tokens",
    "settings_of",
    "without_password",
]


if not TYPE_CHECKING:  # it knows the names from above, and which ones there are not

    def __getattr__(name: str) -> Any:
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"service.config.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
