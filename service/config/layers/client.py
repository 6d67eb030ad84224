"""What clients read of the layers: where the service is, and with which credentials.

A client command lives for some milliseconds, and pydantic alone takes longer to import than they
have. So these few settings are read by hand; everything that `ClientSection` refuses is refused.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from service.config.addresses import to_connect
from service.config.layers.environment import ADMIN_SERVER, FILE, PREFIX, SEPARATOR, SERVER
from service.config.layers.faults import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LISTENS: dict[str, tuple[str, Any]] = {
    "server": ("grpc", ["0.0.0.0:50051"]),
    "admin": ("admin", ["127.0.0.1:50052"]),
    "metrics": ("metrics", "0.0.0.0:9464"),
}
"""Address of [client] -> the section whose `listen` stands for it, and its default."""

_BOOLEANS = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class ClientSettings(NamedTuple):
    """How to reach a running service."""

    server: str = ""
    """Where scores are asked for."""
    admin: str = ""
    """Where the fleet is administered. Empty: nowhere."""
    metrics: str = ""
    """Where Prometheus scrapes it. Empty: nowhere."""
    tls: bool = False
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    token_file: Path | None = None
    server_name: str = ""

    @property
    def uses_tls(self) -> bool:
        """Whether the client speaks TLS."""
        return self.tls or self.ca_file is not None or self.certificate_file is not None


def load_client(path: Path | None, flags: Mapping[str, Any]) -> ClientSettings:
    """The settings of clients, from a TOML file, the environment and flags.

    Args:
        path: the file; None for the one that KVATLAS_CONFIG names, if it is set.
        flags: by name, as in `ClientSettings`.

    Raises:
        ConfigurationError: with every fault.
    """
    faults: list[str] = []
    if path is None and os.environ.get(FILE):
        path = Path(os.environ[FILE])
    given: dict[str, dict[str, Any]] = {"client": {}, "grpc": {}, "admin": {}, "metrics": {}}
    for layer in (_file(path, faults), _environment(faults), {"client": flags}):
        for section, into in given.items():
            values = layer.get(section, {})
            if isinstance(values, dict):
                into.update(values)
            else:
                faults.append(f"{section}: must be a section (it is {values!r})")
    values = dict(_checked(given["client"], faults))
    called = [flags.get("admin"), flags.get("server"), values.get("admin"), values.get("server")]
    for name, (section, default) in _LISTENS.items():
        listen = given[section].get("listen", default)
        if not values.get(name):
            values[name] = _first(f"{section}.listen", listen, faults)
            if name == "metrics":  # of the service that is called
                values[name] = _at_host(values[name], next(filter(None, called), ""))
    if faults:
        raise ConfigurationError(faults)
    return ClientSettings(**values)


def _file(path: Path | None, faults: list[str]) -> dict[str, Any]:
    if path is None:
        return {}
    import tomllib  # not needed without a file

    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        faults.append(f"{path}: cannot be read: {error.strerror}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        faults.append(f"{path}: not valid TOML: {error}")
    return {}


def _environment(faults: list[str]) -> dict[str, Any]:
    """The sections, as far as clients read them."""
    found: dict[str, Any] = {}
    for variable in sorted(os.environ, key=lambda name: (name.count(SEPARATOR), name)):
        if not variable.upper().startswith(PREFIX):
            continue
        section, _, name = variable[len(PREFIX) :].lower().partition(SEPARATOR)
        is_listen = name == "listen" and section in {"grpc", "admin", "metrics"}
        value: Any = os.environ[variable]
        if section not in {"client", "grpc", "admin", "metrics"} or not (
            section == "client" or is_listen or not name
        ):
            continue
        try:
            if not name or (is_listen and section != "metrics"):
                value = json.loads(value)
        except ValueError as error:
            faults.append(f"{variable}: cannot be read: {error}")
            continue
        if not name:
            found[section] = value
        elif isinstance(found.setdefault(section, {}), dict):  # else it is refused as a whole
            found[section][name] = value
    for name, variable in (("server", SERVER), ("admin", ADMIN_SERVER)):
        if os.environ.get(variable) and isinstance(found.setdefault("client", {}), dict):
            found["client"][name] = os.environ[variable]
    return found


def _checked(values: Mapping[str, Any], faults: list[str]) -> Iterator[tuple[str, Any]]:
    """The values of [client] as `ClientSettings` has them."""
    for name, value in values.items():
        if name not in ClientSettings._fields:
            faults.append(f"client.{name}: unknown setting")
        elif name == "tls":
            is_on = value if isinstance(value, bool) else _BOOLEANS.get(str(value).lower())
            if is_on is None:
                faults.append(f"client.tls: must be true or false (it is {value!r})")
            else:
                yield name, is_on
        elif not isinstance(value, (str, Path)):
            faults.append(f"client.{name}: must be a string (it is {value!r})")
        else:
            yield name, Path(value) if name.endswith("_file") else str(value)


def _at_host(address: str, other: str) -> str:
    """The port of one address at the host of another."""
    host, separator, _ = other.rpartition(":")
    if not (address and separator) or other.startswith("unix:"):
        return address
    return f"{host}:{address.rpartition(':')[2]}"


def _first(name: str, listen: Any, faults: list[str]) -> str:
    addresses = [listen] if isinstance(listen, str) else listen
    if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
        faults.append(f"{name}: must be addresses (it is {listen!r})")
        return ""
    return to_connect(addresses[0]) if addresses and addresses[0] else ""
