# cython: warn.unreachable=False
"""Block keys: token ids -> the 64-bit names of their blocks.

    key(parent, tokens, extra) = FNV-1a-64( canonical CBOR of [parent, tokens, extra] )

The CBOR is never materialised: its bytes go into the hash as they are produced. FNV's chain
bounds the speed (one multiply per byte, each of which waits for the one before), and there is one
saving only: XOR with a zero byte has no effect, so its multiply joins the one before it.

Events and requests both call `block_keys`. A prompt matches a stored block only because both
paths compute the same key.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import cython

if TYPE_CHECKING:
    from collections.abc import Sequence

    from indexer.types import Tokens


COMPILED: bool = cython.compiled
FNV_OFFSET_BASIS = 0xCBF29CE484222325

# C variables, because Cython makes a Python object of a literal beyond 31 bits.
_PRIME = cython.declare(cython.ulonglong, 0x100000001B3)
_PRIME_SQUARED = cython.declare(cython.ulonglong, 0x366000002E329)
_OFFSET_BASIS = cython.declare(cython.ulonglong, 0xCBF29CE484222325)
_ZERO = array("Q", [0])
_MASK = 0xFFFFFFFFFFFFFFFF  # plain Python has to cut off what C's integers drop


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _step(h: cython.ulonglong, byte: cython.ulonglong) -> cython.ulonglong:
    """Hash one byte."""
    if cython.compiled:
        return (h ^ byte) * _PRIME
    return ((h ^ byte) * _PRIME) & _MASK


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _step_then_zero(h: cython.ulonglong, byte: cython.ulonglong) -> cython.ulonglong:
    """Hash `byte` and a zero byte after it, with one multiply by the squared prime."""
    if cython.compiled:
        return (h ^ byte) * _PRIME_SQUARED
    return ((h ^ byte) * _PRIME_SQUARED) & _MASK


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _head(
    h: cython.ulonglong, major: cython.ulonglong, value: cython.ulonglong
) -> cython.ulonglong:
    """Hash a CBOR head in its shortest form.

    major: the major type, already shifted left by 5. value: its argument.
    """
    if value < 24:
        return _step(h, major | value)
    if value < 0x100:
        return _step(_step(h, major | 24), value)
    if value < 0x10000:
        h = _step(_step(h, major | 25), value >> 8)
        return _step(h, value & 0xFF)
    if value < 0x1000000:
        h = _step(_step_then_zero(h, major | 26), value >> 16)
        h = _step(h, (value >> 8) & 0xFF)
        return _step(h, value & 0xFF)
    if value >> 32 == 0:
        h = _step(_step(h, major | 26), value >> 24)
    else:
        h = _step(_step(h, major | 27), value >> 56)
        h = _step(h, (value >> 48) & 0xFF)
        h = _step(h, (value >> 40) & 0xFF)
        h = _step(h, (value >> 32) & 0xFF)
        h = _step(h, (value >> 24) & 0xFF)
    h = _step(h, (value >> 16) & 0xFF)
    h = _step(h, (value >> 8) & 0xFF)
    return _step(h, value & 0xFF)


@cython.ccall
def fnv1a_64(data: bytes, start: cython.ulonglong) -> cython.ulonglong:
    """Return the FNV-1a-64 of `data`, continued from the hash `start`."""
    h: cython.ulonglong = start
    i: cython.Py_ssize_t
    for i in range(len(data)):
        h = _step(h, cython.cast(cython.uchar, data[i]))
    return h


@cython.boundscheck(False)
@cython.wraparound(False)
def block_keys(
    parent: cython.ulonglong,
    tokens: Tokens,
    block_size: cython.Py_ssize_t,
    extras: Sequence[bytes | None] | None = None,
) -> array[int]:
    """Return the keys of the full blocks of `tokens`.

    Args:
        parent: the key of the block before the first one, or the root of the model's keys.
        tokens: token ids, a writable contiguous buffer of unsigned 64-bit integers.
        block_size: tokens per block.
        extras: for each full block the CBOR of its extras, or None for a block without any;
            None altogether is the same as a None for every block. See `indexer.extras`.

    Returns:
        An `array('Q')` of `len(tokens) // block_size` keys.

    Raises:
        ValueError: the block size is below 1, or `extras` does not have one entry per full block.
            Without a full block `extras` may have any length.
    """
    if block_size < 1:
        raise ValueError(f"block size must be at least 1 token, not {block_size}")
    count: cython.Py_ssize_t = len(tokens) // block_size
    if extras is not None and count and len(extras) != count:
        raise ValueError(
            f"extras for {len(extras)} blocks, but {len(tokens)} tokens make {count} full blocks "
            f"of {block_size} tokens"
        )
    keys = _ZERO * count
    if count == 0:
        return keys
    ids: cython.p_ulonglong
    out: cython.p_ulonglong
    if not cython.compiled:
        ids, out = tokens, keys
    else:
        out = items_of(keys)  # type: ignore[name-defined]  # noqa: F821
        if type(tokens) is array and tokens.typecode == "Q":
            ids = items_of(tokens)  # type: ignore[name-defined]  # noqa: F821
        else:
            view: cython.ulonglong[::1] = tokens
            ids = cython.address(view[0])
    key: cython.ulonglong = parent
    opened: cython.ulonglong = _step(_OFFSET_BASIS, 0x83)  # the head of an array of three
    h: cython.ulonglong
    block: cython.Py_ssize_t
    i: cython.Py_ssize_t
    for block in range(count):
        h = _head(opened, 0x00, key)
        h = _head(h, 0x80, block_size)
        for i in range(block * block_size, (block + 1) * block_size):
            h = _head(h, 0x00, ids[i])
        extra = None if extras is None else extras[block]
        key = _step(h, 0xF6) if extra is None else fnv1a_64(extra, h)
        out[block] = key
    return keys
