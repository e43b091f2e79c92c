"""Homomorphic encryption: the server adds ciphertexts that it cannot read, a site opens the sum.

CKKS (Cheon, Kim, Kim, Song 2017, https://eprint.iacr.org/2016/421) by TenSEAL over Microsoft SEAL,
for additions alone. One site makes the key (``generate``) and seals it to the others
(``seal_secret``). In a round each site sends ``encrypt`` and ``tag`` of its vector; the server adds
them up (``Sum``, ``add_tags``); one site, any, opens the sum (``release``), which refuses what is
not the sum of enough sites' vectors and hides the ciphertexts' noise.

What this protects: the server, alone, learns the released sums and nothing else of a vector.
What it does not: every site holds the key, so a site that reads another's ciphertext can open it;
the exchange gives a site its own objects only, and a server that gave them away, together with one
site, would read all. Masks have no such single key: prefer them where they can be used.
"""

from fedcore.privacy.ckks.binding import add_tags, check_sum, tag
from fedcore.privacy.ckks.ciphertexts import Sum, decrypt, encrypt, pack, unpack
from fedcore.privacy.ckks.handover import SealedKey, hand_over, maker, take_over
from fedcore.privacy.ckks.keys import generate, open_secret, seal_secret
from fedcore.privacy.ckks.parameters import Parameters, error_bound, expansion, fitting
from fedcore.privacy.ckks.release import release
from fedcore.privacy.ckks.selection import flat, join, select, split

__all__ = [
    "Parameters",
    "SealedKey",
    "Sum",
    "add_tags",
    "check_sum",
    "decrypt",
    "encrypt",
    "error_bound",
    "expansion",
    "fitting",
    "flat",
    "generate",
    "hand_over",
    "join",
    "maker",
    "open_secret",
    "pack",
    "release",
    "seal_secret",
    "select",
    "split",
    "tag",
    "take_over",
    "unpack",
]  # fmt: skip
