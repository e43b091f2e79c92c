"""The sum of sealed vectors, as they come: words behind masks, ciphertexts, and what is plain.

Its size does not depend on how many sites there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedcore.errors import UpdateRejected
from fedcore.privacy.division import Division
from fedcore.records import DataSummary, Sealed


@dataclass
class Told:
    """What the sites say beside their vectors; ``sizes`` in bytes, ``rejected`` by site and why."""

    data: dict[str, DataSummary] = field(default_factory=dict)
    measurements: dict[str, Mapping[str, float]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)

    @property
    def sites(self) -> tuple[str, ...]:
        """Those whose vector is in the sum."""
        return tuple(sorted(self.data))


class HiddenSum:
    """Of vectors of ``length`` values. ``masked`` and ``plain``: None where nothing travels so."""

    def __init__(self, divided: Division, length: int) -> None:
        self._divided = divided
        rest, grid = length - divided.encrypted, divided.grid
        self.told = Told()
        self.masked = None if grid is None else np.zeros(rest, grid.dtype)
        self.plain = np.zeros(rest) if grid is None and rest else None
        self._encrypted: Any = None
        self._tags: list[bytes] = []
        if divided.parameters is not None:
            from fedcore.privacy import ckks

            _, public = ckks.generate(divided.parameters)  # which holds no key
            self._encrypted = ckks.Sum(public, divided.parameters, divided.encrypted)

    def add(self, site: str, sealed: Sealed) -> None:
        """Add a site's vector, all of it or nothing. Raises UpdateRejected."""
        arrays = dict(sealed.arrays)
        masked = _array(arrays.pop("masked", None), self.masked, "masked input")
        plain = _array(arrays.pop("plain", None), self.plain, "plain part", np.float32)
        if plain is not None and not np.isfinite(plain).all():
            raise UpdateRejected("has a NaN or an infinity")
        if plain is not None and np.abs(plain).max(initial=0.0) > self._divided.bound * 1.0001:
            raise UpdateRejected("has a value beyond the clip norm")
        if self._encrypted is not None:
            self._add_encrypted(site, arrays.pop("encrypted", None), arrays.pop("tag", None))
        if arrays:
            raise UpdateRejected(f"sent the array {min(arrays)!r}, which nobody asked for")
        for total, part in ((self.masked, masked), (self.plain, plain)):
            if total is not None and part is not None:
                np.add(total, part, out=total)
        self.told.data[site], self.told.measurements[site] = sealed.data, sealed.measurements

    def encrypted(self) -> dict[str, NDArray[np.uint8]]:
        """The encrypted sum, and the tag that binds it to the sites whose vectors are in it."""
        from fedcore.privacy import ckks

        return {
            "encrypted": np.frombuffer(ckks.pack(self._encrypted.chunks()), np.uint8),
            "tag": np.frombuffer(ckks.add_tags(self._tags), np.uint8),
        }

    def _add_encrypted(self, site: str, packed: Any, tag: Any) -> None:
        from fedcore.privacy import ckks
        from fedcore.privacy.ckks.binding import TAG_BYTES

        parameters = self._divided.parameters
        if parameters is None or packed is None or packed.dtype != np.uint8:
            raise UpdateRejected("sent no encrypted part")
        if tag is None or tag.dtype != np.uint8 or tag.shape != (TAG_BYTES,):
            raise UpdateRejected("sent no tag with its encrypted part")
        chunks = ckks.unpack(packed.tobytes(), self._divided.encrypted, parameters, site)
        self._encrypted.add(chunks, site)
        self._tags.append(tag.tobytes())


def _array(
    given: Any, total: NDArray[Any] | None, what: str, dtype: Any = None
) -> NDArray[Any] | None:
    """The part, checked against what it is to be added to. Raises UpdateRejected."""
    if total is None:
        if given is not None:
            raise UpdateRejected(f"sent a {what}, which nobody asked for")
        return None
    wanted = np.dtype(dtype or total.dtype)
    if given is None or given.dtype != wanted or given.shape != total.shape:
        raise UpdateRejected(f"its {what} is not {total.size} values of {wanted}")
    part: NDArray[Any] = given
    return part
