"""Messages that are almost right: JSON and blobs with something odd in one place."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fedcore.store.identity import Roll, open_reply

fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

odd_numbers = st.sampled_from(
    [-1, 0, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e308, -1e308, 5e-324]
)
odd_json = st.recursive(
    st.none() | st.booleans() | odd_numbers | st.floats() | st.text(max_size=4)
    | st.sampled_from(["", "\ud800", "\0", "../../params", "north", "ClientUpdate", "x" * 999]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner,
                                                                max_size=3),
    max_leaves=6,
)  # fmt: skip
"""What Python's json writes, NaN, lone surrogates and numbers of 400 digits included."""


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to everything inside a JSON value, itself included."""
    yield here
    inside = value.items() if isinstance(value, dict) else enumerate(value) \
        if isinstance(value, list) else ()  # fmt: skip
    for key, inner in inside:
        yield from places(inner, (*here, key))


def altered(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """``value`` with ``new`` in that place."""
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = altered(copy[path[0]], path[1:], new)
    return copy


def blob(header: str, body: bytes) -> bytes:
    """A safetensors file with this text as its header, whatever it says."""
    text = header.encode("utf-8", "surrogatepass")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + body


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file as JSON, and the rest."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def content(data: bytes) -> bytes:
    """A reply without the frame of a signature, which a site can make for anything it sends."""
    return bytes(open_reply(data, "", Roll()))


Change = Callable[[bytes], bytes]


def inside(path: tuple[Any, ...], new: Any) -> Change:
    """Puts ``new`` in this place of the fields that the blob carries."""

    def change(data: bytes) -> bytes:
        header, body = parts(data)
        fields = altered(json.loads(header["__metadata__"]["fedcore"]), path, new)
        return blob(json.dumps({**header, "__metadata__": {"fedcore": json.dumps(fields)}}), body)

    return change


def around(path: tuple[Any, ...], new: Any) -> Change:
    """Puts ``new`` in this place of the file format's own header."""

    def change(data: bytes) -> bytes:
        header, body = parts(data)
        return blob(json.dumps(altered(header, path, new)), body)

    return change


def flipped(bits: list[int]) -> Change:
    def change(data: bytes) -> bytes:
        copy = bytearray(data)
        for bit in bits:
            copy[bit // 8 % len(copy)] ^= 1 << bit % 8
        return bytes(copy)

    return change


def changes(like: bytes) -> st.SearchStrategy[Change]:
    """What can be done to such a blob: flip, cut, splice, or put something odd in a header."""
    header, _ = parts(like)
    fields = json.loads(header["__metadata__"]["fedcore"])
    position = st.integers(0, len(like) - 1)
    return st.one_of(
        st.binary(max_size=64).map(lambda junk: lambda _: junk),
        st.lists(st.integers(0, 8 * len(like) - 1), min_size=1, max_size=4).map(flipped),
        position.map(lambda end: lambda data: data[:end]),
        st.tuples(position, position).map(lambda cut: lambda data: data[: cut[0]] + data[cut[1] :]),
        st.tuples(st.sampled_from(list(places(header))), odd_json).map(lambda at: around(*at)),
        st.tuples(st.sampled_from(list(places(fields))), odd_json).map(lambda at: inside(*at)),
    )
