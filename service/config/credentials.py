"""Certificates and tokens in files: read whenever they change, and refused if they are useless."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Certificates(NamedTuple):
    """What a server shows its clients, and how it knows them; all PEM."""

    key: bytes
    chain: bytes
    client_authorities: bytes | None
    """Clients need a certificate of one of these; None: any client is served."""


def read_certificates(chain: Path, key: Path, client_authorities: Path | None) -> Certificates:
    """Read the files. Raises OSError, or ValueError if they cannot be used together."""
    certificates = Certificates(
        key.read_bytes(),
        chain.read_bytes(),
        None if client_authorities is None else client_authorities.read_bytes(),
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a password would be asked for on the terminal.
        context.load_cert_chain(chain, key, password="")
    except ssl.SSLError as error:
        reason = error.reason or error
        raise ValueError(f"{chain} and {key} are no certificate and its key: {reason}") from None
    if client_authorities is not None:
        read_authorities(client_authorities)
    return certificates


def read_authorities(path: Path) -> bytes:
    """Read certificates of authorities. Raises OSError, or ValueError if there are none."""
    authorities = path.read_bytes()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError(f"{path} contains no certificate") from None
    return authorities


def read_headers(path: Path) -> dict[str, str]:
    """Read HTTP headers, `name: value` one a line. Raises OSError, or ValueError if one is none."""
    headers = {}
    for number, line in enumerate(path.read_text("latin-1").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not _HEADER_NAME.fullmatch(name) or not value.strip().isprintable():
            # The line itself may be a secret.
            raise ValueError(f"{path}: line {number} is no header, as in `name: value`")
        headers[name.lower()] = value.strip()
    return headers


def read_tokens(path: Path) -> tuple[bytes, ...]:
    """Read the tokens of a file, one a line. Raises OSError, or ValueError if there is none."""
    lines = [line.strip() for line in path.read_bytes().splitlines()]
    tokens = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not tokens:
        raise ValueError(f"{path} contains no token")
    if any(not token.isascii() or b" " in token for token in tokens):
        raise ValueError(f"{path} contains a token that is not one word of ASCII characters")
    return tokens
