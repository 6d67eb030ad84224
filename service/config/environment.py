"""Variables of the environment that begin with KVATLAS_ but that nothing reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "KVATLAS_"
FILE = "KVATLAS_CONFIG"
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
        if name.upper() != FILE and not name.startswith(links) and not _is_read(name, settings)
    )


def _is_read(name: str, settings: Mapping[str, bool]) -> bool:
    top, _, rest = name.lower().removeprefix(PREFIX.lower()).partition("__")
    return top in settings and (settings[top] or not rest)
