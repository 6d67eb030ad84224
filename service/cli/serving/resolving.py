"""`kvatlas resolve-tokenizer`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.terminal import complain
from tokenization import ResolveError, resolve_tokenizer

if TYPE_CHECKING:
    from service.cli.flags.command import Options


def resolve(options: Options) -> int:
    """Write a tokenizer as its engine runs it. Returns the exit status."""
    try:
        resolve_tokenizer(options.source, options.target)
    except ResolveError as error:
        complain(str(error))
        return 1
    print(f"wrote {options.target / 'tokenizer.json'}")
    return 0
