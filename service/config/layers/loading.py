"""Reads the layers, merges and validates them, and remembers where each value comes from.

pydantic-settings reads the file and the environment, one variable at a time: so all that cannot be
read are named together. Flags are read by `settings`, because pydantic-settings' own command line
takes `[::1]:50051` for JSON and splits values at commas.
"""

from __future__ import annotations

import os
import re
from json import JSONDecodeError
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsError,
    TomlConfigSettingsSource,
)

from service.config.layers.environment import FILE, PREFIX, SEPARATOR
from service.config.layers.faults import ConfigurationError
from service.config.layers.settings import Setting, is_secret

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Settings = TypeVar("Settings", bound=BaseSettings)
Location = tuple[str | int, ...]

_PASSWORD = re.compile(r"(?<=://)([^/@:\s]*):[^@\s]*@")


class Origin(NamedTuple):
    """Where a value comes from."""

    layer: str
    """One of default, file, environment, flag."""
    name: str = ""
    """The file, the variable or the flag."""


class Flag(NamedTuple):
    """A setting on the command line."""

    name: str
    """As it was written, such as --block-size."""
    setting: Setting
    values: list[str]
    """Several only if the setting has several elements."""


class Loaded(NamedTuple, Generic[Settings]):
    """A valid configuration."""

    settings: Settings
    origins: Mapping[Location, Origin]

    def origin(self, location: Location) -> Origin:
        """Where the value at this place comes from."""
        return _origin(self.origins, location)


def load_layers(
    kind: type[Settings],
    path: Path | None,
    flags: Iterable[Flag] = (),
    values: Mapping[str, Any] | None = None,
) -> Loaded[Settings]:
    """Read all layers.

    Args:
        kind: the settings.
        path: a TOML file; None for the one that KVATLAS_CONFIG names, if it is set.
        flags: those of the command line.
        values: override all of these; nested as in the file.

    Raises:
        ConfigurationError: with every fault.
    """
    merged = _Merged()
    if path is None and os.environ.get(FILE):
        path = Path(os.environ[FILE])
    if path is not None:
        merged.add(Origin("file", str(path)), lambda: _read(kind, path))
    _add_environment(merged, kind)
    for flag in flags:
        _add_flag(merged, flag)
    merged.add(Origin("flag"), lambda: dict(values or {}))
    faults = list(merged.faults)
    try:
        settings = _given_alone(kind)(**merged.values)
    except ValidationError as error:
        faults += [_describe(fault, kind, merged.origins) for fault in error.errors()]
    if faults:
        raise ConfigurationError(faults)
    return Loaded(settings, merged.origins)


class _Merged:
    """Values of several layers, nested; later ones override earlier ones."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Location, Origin] = {}
        self.faults: list[str] = []

    def add(self, origin: Origin, read: Callable[[], dict[str, Any]], what: str = "") -> None:
        """Add what `read` returns; what it raises is a fault of the setting `what`."""
        try:
            values = read()
        except ConfigurationError as error:
            self.faults += error.faults
        except (SettingsError, ValueError) as error:
            cause = error.__cause__ or error
            kind = "not valid JSON: " if isinstance(cause, JSONDecodeError) else ""
            self.faults.append(f"{what}: {kind}{cause} (from {origin.name})")
        else:
            self._merge(self.values, values, origin, ())

    def _merge(
        self, into: dict[str, Any], values: dict[str, Any], origin: Origin, at: Location
    ) -> None:
        for name, value in values.items():
            here = (*at, name)
            if isinstance(value, dict) and value:
                inner = into.setdefault(name, {})
                if isinstance(inner, dict):  # else it is refused
                    self._merge(inner, value, origin, here)
            else:
                into[name] = value
                self.origins[here] = origin


class _TomlFile(TomlConfigSettingsSource):
    """A file that must be there, and may be a pipe."""

    def _read_files(self, files: Any, deep_merge: bool = False) -> dict[str, Any]:  # noqa: ARG002
        return self._read_file(files)


def _read(kind: type[BaseSettings], path: Path) -> dict[str, Any]:
    try:
        return _TomlFile(kind, path)()
    except OSError as error:
        raise ConfigurationError([f"{path}: cannot be read: {error.strerror}"]) from error
    except (TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError([f"{path}: not valid TOML: {error}"]) from error


def _add_environment(merged: _Merged, kind: type[BaseSettings]) -> None:
    source = EnvSettingsSource(kind)
    given = [name for name in os.environ if name.upper().startswith(PREFIX)]
    # A variable of a whole section comes before those of single settings in it.
    for name in sorted(given, key=lambda name: (name.count(SEPARATOR), name)):
        source.env_vars = {name.lower(): os.environ[name]}
        what = name.lower().removeprefix(PREFIX.lower()).replace(SEPARATOR, ".")
        merged.add(Origin("environment", name), source, what)


def _add_flag(merged: _Merged, flag: Flag) -> None:
    *sections, name = flag.setting.name.split(".")

    def read() -> dict[str, Any]:
        values: dict[str, Any] = {name: flag.setting.parse(flag.values)}
        for section in reversed(sections):
            values = {section: values}
        return values

    merged.add(Origin("flag", flag.name), read, flag.setting.name)


def _given_alone(kind: type[Settings]) -> type[Settings]:
    """The settings without sources of their own."""

    class _Given(kind):  # type: ignore[valid-type, misc]
        @classmethod
        def settings_customise_sources(
            cls, _kind: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (init_settings,)

    return _Given


def _describe(fault: Any, kind: type[BaseModel], origins: Mapping[Location, Origin]) -> str:
    location: Sequence[str | int] = fault["loc"]
    where = ".".join(map(str, location)) or "configuration"
    message = fault["msg"].removeprefix("Value error, ")
    message = without_password(message[:1].lower() + message[1:])
    given = fault["input"]
    notes = []
    if fault["type"] == "extra_forbidden":
        message = "unknown setting"
    elif is_secret(kind, location):
        notes.append("its value is secret")
    elif not isinstance(given, (dict, BaseModel)):
        notes.append(without_password(f"it is {given!r}"))
    origin = _origin(origins, tuple(location))
    if origin.name and origin.layer != "file":
        notes.append(f"from {origin.name}")
    return f"{where}: {message}" + (f" ({', '.join(notes)})" if notes else "")


def without_password(text: str) -> str:
    """The text with the passwords of its URLs hidden."""
    return _PASSWORD.sub(r"\1:***@", text)


def _origin(origins: Mapping[Location, Origin], location: Location) -> Origin:
    for length in range(len(location), 0, -1):
        if location[:length] in origins:
            return origins[location[:length]]
    return Origin("default")
