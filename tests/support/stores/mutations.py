"""Values that no replica writes, put in the place of those in a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from random import Random

    import redis

_NUMBERS = (-1, 2**31, 2**53 + 1, 2**64 - 1, 1e300, float("nan"))


class Mutator:
    """Damages the keys of one namespace at random."""

    def __init__(self, client: redis.Redis, namespace: str, random: Random) -> None:
        self._client: Any = client
        self._namespace = namespace
        self._random = random

    def damage(self) -> str:
        """Damage one key; return what was done."""
        kinds: dict[bytes, list[bytes]] = {}
        for key in sorted(self._client.scan_iter(f"{self._namespace}:*")):
            kind = key.split(b":")[3] if key.count(b":") > 2 else key
            kinds.setdefault(
                b"b" if kind.startswith(b"b") and kind != b"bits" else kind, []
            ).append(key)
        kind = self._random.choice(sorted(kinds))
        key = self._random.choice(kinds[kind])
        what = self._random.choice([self._replace, self._damage_inside, self._damage_inside])
        return f"{key!r}: {what(key)}"

    def _replace(self, key: bytes) -> str:
        """Put a key of another type, or of random bytes, in its place."""
        was = self._client.type(key)
        kinds = {b"string", b"list", b"set", b"zset", b"hash", b"stream"} - {was}
        kind = self._random.choice(sorted(kinds))
        self._client.delete(key)
        match kind:
            case b"string":
                self._client.set(key, self._bytes())
            case b"list":
                self._client.rpush(key, self._bytes())
            case b"set":
                self._client.sadd(key, self._bytes(), self._bytes())
            case b"zset":
                self._client.zadd(key, {self._bytes(): 1.0})
            case b"hash":
                self._client.hset(key, self._bytes(), self._bytes())
            case b"stream":
                self._client.xadd(key, {b"e": self._bytes()})
        return f"{was!r} replaced by {kind!r}"

    def _damage_inside(self, key: bytes) -> str:
        kind = self._client.type(key)
        if kind == b"hash":
            return self._damage_hash(key)
        if kind == b"stream":
            return self._damage_stream(key)
        if kind == b"string":
            self._client.set(key, self._bytes(least=9))
            return "random bytes"
        return self._replace(key)

    def _damage_hash(self, key: bytes) -> str:
        fields = sorted(self._client.hkeys(key))
        field = self._random.choice(fields)
        value = self._client.hget(key, field)
        what = self._random.choice(["bytes", "truncated", "long", "other types", "field"])
        match what:
            case "bytes":
                self._client.hset(key, field, self._bytes())
            case "truncated":
                self._client.hset(key, field, value[: len(value) // 2])
            case "long":
                self._client.hset(key, field, self._bytes(least=2_000_000))
            case "other types":
                self._client.hset(key, field, self._other_types(value))
            case "field":
                self._client.hset(key, self._bytes(), self._bytes())
        return f"{what} of {field!r}"

    def _damage_stream(self, key: bytes) -> str:
        what = self._random.choice(["entry", "field", "id", "long"])
        match what:
            case "entry":
                self._client.xadd(key, {b"e": self._bytes()})
            case "field":
                self._client.xadd(key, {b"f": self._bytes()})
            case "id":
                self._client.xadd(key, {b"e": self._bytes()}, id="18446744073709551615-1")
            case "long":
                self._client.xadd(key, {b"e": self._bytes(least=2_000_000)})
        return what

    def _other_types(self, value: bytes) -> bytes:
        """Return a packed value with a part replaced; random bytes if it is not packed."""
        try:
            unpacked = msgpack.unpackb(value, strict_map_key=False)
        except (ValueError, msgpack.UnpackException):
            return self._bytes()
        if not isinstance(unpacked, (dict, list)) or not unpacked:
            return self._bytes()
        part: Any = self._random.choice(
            sorted(unpacked, key=str) if isinstance(unpacked, dict) else range(len(unpacked))
        )
        others: list[Any] = [*_NUMBERS, None, [], {}, b"\xff\xfe", "x" * 10_000, [[[]]], {"a": []}]
        unpacked[part] = self._random.choice(others)
        return bytes(msgpack.packb(unpacked))

    def _bytes(self, least: int = 1) -> bytes:
        return self._random.randbytes(least + self._random.randrange(40))
