"""The configuration from the command line, and `kvatlas config show`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ByteSize

from service.cli.flags.settings import flag_name, parameter
from service.cli.screen.tables import Table, show
from service.config import (
    Configuration,
    ConfigurationError,
    Flag,
    Loaded,
    ignored_variables,
    load_with_origins,
    settings_of,
    without_password,
)
from service.terminal import complain, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from service.cli.flags.command import Options
    from service.config import Setting

_HIDDEN = "(hidden)"


def loaded(options: Options) -> Loaded[Configuration] | None:
    """The configuration; None if it has faults, which have been printed then."""
    try:
        return load_with_origins(options.config, _flags(options))
    except ConfigurationError as error:
        complain("the configuration has faults:")
        for fault in [*error.faults, *ignored_variables()]:
            print(f"  {printable(fault)}", file=sys.stderr)
        return None


def _flags(options: Options) -> Iterator[Flag]:
    """What the command line says."""
    for setting in settings_of(Configuration):
        given = getattr(options, parameter(setting.name))
        name, values = flag_name(setting), [given] if isinstance(given, str) else list(given or ())
        if setting.name == "sources":
            bound = [json.dumps({"endpoint": endpoint, "bind": True}) for endpoint in options.bind]
            connected = list(map(_connected, options.connect))
            name = "--sources" if values else "--bind" if bound else "--connect"
            values += [*bound, *connected]
        if values:
            yield Flag(name, setting, values)


def _connected(source: str) -> str:
    pod, separator, endpoint = source.rpartition("=")
    return json.dumps({"endpoint": endpoint, **({"pod": pod} if separator else {})})


def show_configuration(options: Options) -> int:
    """`kvatlas config show`: returns the exit status."""
    configuration = loaded(options)
    if configuration is None:
        return 2
    shown = list(_values(configuration, options))
    if options.json:
        entries = {
            name: {"value": _json(value), "from": origin.layer, "name": origin.name}
            for name, value, origin in shown
        }
        print(json.dumps(entries, indent=2, ensure_ascii=False))
    else:
        table = Table("SETTING", "VALUE", "FROM")
        for name, value, origin in shown:
            source = origin.layer if origin.layer == "default" else origin.name
            table.add(name, _text(value), source)
        show(table)
    for ignored in ignored_variables():
        complain(ignored)
    return 0


def _values(
    configuration: Loaded[Configuration], options: Options
) -> Iterator[tuple[str, Any, Any]]:
    """Name, value and origin of each setting; of a mapping, of each entry."""
    for setting in settings_of(Configuration):
        value: Any = configuration.settings
        path = tuple(setting.name.split("."))
        for part in path:
            value = getattr(value, part)
        entries = (
            {(*path, key): inner for key, inner in value.items()}
            if (isinstance(value, dict) and value)
            else {path: value}
        )
        for location, inner in entries.items():
            origin = configuration.origin(location)
            if origin.layer != "default" or not options.changed:
                yield ".".join(location), _without_secret(setting, inner), origin


def _without_secret(setting: Setting, value: Any) -> Any:
    if setting.is_secret and value:
        return _HIDDEN
    return without_password(value) if isinstance(value, str) else value


def _json(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, tuple):
        return [_json(element) for element in value]
    return value if isinstance(value, (str, int, float, dict)) or value is None else str(value)


def _text(value: Any) -> str:
    if isinstance(value, ByteSize):
        return value.human_readable() if value % 1024 == 0 and value else str(int(value))
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        elements = [element.model_dump(mode="json", exclude_defaults=True) for element in value]
        return json.dumps(elements, ensure_ascii=False)
    if isinstance(value, (bool, tuple, dict)):
        return json.dumps(_json(value), ensure_ascii=False)
    return "" if value is None else str(value)
