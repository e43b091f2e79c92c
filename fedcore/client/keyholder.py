"""A site that holds the sites' common key: it makes or gets it, encrypts, and opens sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from fedcore.client.private import Private
from fedcore.client.talk import Talk
from fedcore.errors import OrderRefused, UpdateRejected
from fedcore.privacy import ckks
from fedcore.privacy.ckks import Parameters, SealedKey
from fedcore.privacy.ckks.binding import TAG_BYTES
from fedcore.privacy.secagg import Terms
from fedcore.privacy.secagg.client import Identities
from fedcore.records import Message


class Keyholder:
    """One site in one attempt at one round."""

    def __init__(
        self,
        talk: Talk,
        private: Private,
        identity: Ed25519PrivateKey,
        identities: Identities,
        channel: X25519PrivateKey,
        terms: Terms,
        parameters: Parameters,
    ) -> None:
        self._talk, self._private, self._terms = talk, private, terms
        self._identity, self._identities, self._channel = identity, identities, channel
        self._parameters = parameters
        self._site = talk.order.site
        turn = talk.order.round_num + talk.order.attempt
        self._maker = ckks.maker([keys.site for keys in terms.roster], turn)
        self._key = b""

    def hand_over(self) -> dict[str, Any]:
        """The key, if this is the site that makes it, sealed to each of the others."""
        if self._site != self._maker:
            return {}
        self._make()
        channel_keys = {keys.site: keys.channel_key for keys in self._terms.roster}
        sealed = ckks.hand_over(
            self._key, self._site, self._identity, channel_keys, self._terms.digest
        )
        return {peer: key.to_json() for peer, key in sealed.items()}

    def receive(self, body: Any) -> None:
        """Take what the server passed on. Raises OrderRefused if it is not the maker's key."""
        if self._site == self._maker:
            self._make()
            return
        accepted: Sequence[Any] = self._identities.get(self._maker, ())
        self._key = ckks.take_over(
            SealedKey.from_json(body, OrderRefused), self._maker, self._site, self._channel,
            accepted, self._terms.digest,
        )  # fmt: skip

    def encrypted(self, values: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
        """The values encrypted, and the tag that binds their sum.

        Encryption draws fresh randomness: what was drawn first is kept, so that a client that was
        killed sends the same.
        """

        def encrypt() -> bytes:
            tag = ckks.tag(values, self._key, self._parameters, self._terms.digest, self._site)
            return tag + ckks.pack(ckks.encrypt(values, self._key, self._parameters))

        sent = self._private.remember("encrypted", encrypt)
        return {"tag": _bytes(sent[:TAG_BYTES]), "encrypted": _bytes(sent[TAG_BYTES:])}

    def opened_sum(self, length: int, survivors: Sequence[str]) -> Message:
        """The sum that the server asks to be opened, as a message.

        The survivors are those that enough sites signed. Raises OrderRefused where what is to be
        opened is not the sum of just their updates.
        """
        arrays = self._talk.attached("decrypt")
        try:
            packed, tag = arrays["encrypted"].tobytes(), arrays["tag"].tobytes()
            chunks = ckks.unpack(packed, length, self._parameters, "the sum")
            values = ckks.release(
                chunks, length, tag, survivors, self._terms.threshold, self._key,
                self._parameters, self._terms.digest,
            )  # fmt: skip
        except (KeyError, UpdateRejected) as error:
            raise OrderRefused(f"asked to open what is no sum: {error}") from error
        return self._talk.say("sum", {}, {"values": values})

    def _make(self) -> None:
        self._key = self._private.remember("key", lambda: ckks.generate(self._parameters)[0])


def _bytes(data: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)
