"""Variables of the environment that begin with KVATLAS_, and those of them that nothing reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "KVATLAS_"
SEPARATOR = "__"
"""Between a section and a setting."""
FILE = "KVATLAS_CONFIG"
SERVER = "KVATLAS_SERVER"
"""Where client commands find the service."""
ADMIN_SERVER = "KVATLAS_ADMIN_SERVER"
"""Where client commands find its administration."""
_NOT_SETTINGS = {FILE, SERVER, ADMIN_SERVER}
_HOST = "_SERVICE_HOST"


def unread_variables(environment: Mapping[str, str], settings: Mapping[str, bool]) -> list[str]:
    """Their names, without those that Kubernetes sets for services named kvatlas or kvatlas-...

    Args:
        environment: all variables.
        settings: names at the top level, and whether they contain others.
    """
    given = [name for name in environment if name.upper().startswith(PREFIX)]
    services = [name.removesuffix(_HOST) for name in given if name.endswith(_HOST)]
    links = tuple(f"{name}_{part}" for name in services for part in ("SERVICE_", "PORT"))
    return sorted(
        name
        for name in given
        if name.upper() not in _NOT_SETTINGS
        and not name.startswith(links)
        and not _is_read(name, settings)
    )


def _is_read(name: str, settings: Mapping[str, bool]) -> bool:
    top, _, rest = name.lower().removeprefix(PREFIX.lower()).partition(SEPARATOR)
    return top in settings and (settings[top] or not rest)
