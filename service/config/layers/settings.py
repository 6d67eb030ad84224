"""Every setting there is: its name, its flag, its help."""

from __future__ import annotations

import json
import types
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic.fields import FieldInfo


class Setting(NamedTuple):
    """One setting."""

    name: str
    """With its section, such as index.block_size."""
    help: str
    kind: type
    """What a value is, without None: str, int, tuple, dict, ..."""
    choices: tuple[str, ...]
    """The only values, if there are but few."""
    is_secret: bool
    is_optional: bool
    """Whether it may have no value."""
    is_json: bool
    """Whether its elements are sections of their own, which a flag gives as JSON."""

    @property
    def flag(self) -> str:
        """Such as --index.block-size."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def is_repeatable(self) -> bool:
        """Whether its flag is given once for each element, or each `key=value`."""
        return self.kind in {tuple, dict}

    def parse(self, values: Sequence[str]) -> Any:
        """What the values of its flag mean, for the model to validate. Raises ValueError."""
        if self.kind is dict:
            return dict(map(_pair, values))
        if self.kind is tuple:
            if list(values) == [""]:
                return []
            return [json.loads(value) if self.is_json else value for value in values]
        return None if self.is_optional and not values[-1] else values[-1]


def _pair(value: str) -> tuple[str, str]:
    name, separator, inner = value.partition("=")
    if not separator:
        raise ValueError(f"must be NAME=VALUE, not {value!r}")
    return name, inner


def settings_of(model: type[BaseModel], section: str = "") -> Iterator[Setting]:
    """The settings of a model and of the sections in it, in their order."""
    for name, field in model.model_fields.items():
        kind = _kind(field.annotation)
        if issubclass(kind, BaseModel):
            yield from settings_of(kind, f"{section}{name}.")
        else:
            arguments = get_args(field.annotation)
            yield Setting(
                f"{section}{name}",
                field.description or "",
                kind,
                arguments if get_origin(field.annotation) is Literal else (),
                is_secret=not field.repr,
                is_optional=type(None) in arguments,
                is_json=kind is tuple and issubclass(_kind(arguments[0]), BaseModel),
            )


def is_secret(model: type[BaseModel], location: Sequence[int | str]) -> bool:
    """Whether the value at this place is not to be shown."""
    found: FieldInfo | None = None
    inner: type[BaseModel] | None = model
    for part in location:
        found = inner.model_fields.get(str(part)) if inner is not None else None
        kind = _kind(found.annotation) if found is not None else object
        inner = kind if issubclass(kind, BaseModel) else None
    return found is not None and not found.repr


def _kind(annotation: Any) -> type:
    origin = get_origin(annotation)
    if origin in {Union, types.UnionType}:
        (annotation,) = (part for part in get_args(annotation) if part is not type(None))
        return _kind(annotation)
    if origin is Literal:
        return str
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _kind(annotation.__origin__)
    kind: type = origin or annotation
    return kind
