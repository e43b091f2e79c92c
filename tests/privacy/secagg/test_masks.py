from __future__ import annotations

import numpy as np
import pytest
from cohort import Cohort, names
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.params import BLOCK
from fedcore.privacy.secagg import Secrets, context_of, masks, shares
from fedcore.privacy.secagg.secrets import commitment, frame, mask_key, public


def stream(key: bytes, size: int, dtype: str) -> np.ndarray:
    cipher = Cipher(algorithms.ChaCha20(key=key, nonce=bytes(16)), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(size * np.dtype(dtype).itemsize)), dtype)


@pytest.mark.parametrize("dtype", ["uint16", "uint32", "uint64"])
@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_masks_are_the_key_streams_whatever_the_blocks(dtype, size):
    keys = [bytes([number]) * 32 for number in range(3)]
    vector = np.arange(size).astype(dtype)
    steps = []
    masked = vector.copy()
    masks.add(masked, [(keys[0], 1), (keys[1], -1), (keys[2], 1)], lambda: steps.append(1))
    wanted = vector + stream(keys[0], size, dtype) - stream(keys[1], size, dtype)
    wanted += stream(keys[2], size, dtype)
    assert (masked == wanted).all()
    assert len(steps) == -(-size // BLOCK)


def test_both_ends_of_a_pair_add_opposite_masks_of_the_same_key():
    cohort = Cohort(names(3), 2)
    left = masks.pair_mask(cohort.secrets["site-000"].mask, "site-000", "site-001", cohort.terms)
    right = masks.pair_mask(cohort.secrets["site-001"].mask, "site-001", "site-000", cohort.terms)
    assert left == masks.opposite(right)
    other = masks.pair_mask(cohort.secrets["site-000"].mask, "site-000", "site-002", cohort.terms)
    assert other[0] != left[0]


def test_secrets_follow_from_seed_and_context_alone():
    seed, context = bytes(range(16)), context_of("run", 3)
    secrets, again = Secrets.from_seed(seed, context), Secrets.from_seed(seed, context)
    assert (public(secrets.channel), public(secrets.mask)) == (
        public(again.channel), public(again.mask)
    )  # fmt: skip
    assert secrets.self_secret == again.self_secret
    assert secrets.rounding_key == again.rounding_key
    assert public(mask_key(secrets.mask_secret, context)) == public(secrets.mask)
    later = Secrets.from_seed(seed, context_of("run", 4))
    material = [
        (s.mask_secret, s.self_secret, s.rounding_key, public(s.channel), public(s.mask))
        for s in (secrets, later)
    ]
    assert len({each for known in material for each in known}) == 10, "one secret is another's"
    with pytest.raises(ValueError, match="can be guessed"):
        Secrets.from_seed(bytes(15), context)


def test_secrets_do_not_show_in_what_is_printed():
    secrets = Secrets.from_seed(bytes(16), context_of("run"))
    assert repr(secrets) == "Secrets()"


def test_what_is_derived_stays_what_it_is():
    """Sites of different versions must understand each other: a change here is a new protocol."""
    context = context_of("run-1", "plan", 0, 0)
    secrets = Secrets.from_seed(bytes(range(32)), context)
    assert public(secrets.mask).hex()[:16] == "81de45d3d9f64cde"
    assert public(secrets.channel).hex()[:16] == "e74841f60800d006"
    terms = Cohort(names(3), 2, context=context).terms
    assert terms.digest.hex()[:16] == "1ff191b4f03b9b76"
    pair, _ = masks.pair_mask(secrets.mask, "site-000", "site-001", terms)
    assert pair.hex()[:16] == "9645b46987e15e56"
    assert (
        masks.self_mask(secrets.self_secret, "site-000", terms)[0].hex()[:16] == "b41165bf55ce0c25"
    )
    assert commitment(secrets.self_secret, "site", context).hex()[:16] == "3f8d845afe5920e2"


@settings(deadline=None)
@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_framing_never_confuses_two_lists(left, right):
    assert (frame(*left) == frame(*right)) == (left == right)


@pytest.mark.parametrize(("count", "threshold", "neighbours"), [(5, 3, None), (20, 11, 6)])
def test_any_threshold_of_the_shares_opens_a_secret_and_fewer_do_not(count, threshold, neighbours):
    terms = Cohort(names(count), threshold, neighbours).terms
    secret, owner = bytes(range(16)), "site-002"
    told = shares.split(secret, owner, terms)
    assert set(told) == terms.graph.of(owner) | {owner}
    assert len(told) == (neighbours or count - 1) + 1
    needed = terms.graph.threshold
    for begin in range(len(told)):
        chosen = dict((list(told.items()) * 2)[begin : begin + needed])
        assert shares.reconstruct(chosen, owner, terms, lambda s: s == secret) == secret
    forged = dict(list(told.items())[: needed - 1]) | {list(told)[-1]: bytes(16)}
    assert shares.reconstruct(forged, owner, terms, lambda s: s == secret) is None


@pytest.mark.parametrize("liar", [0, 14, 29])
def test_one_wrong_share_is_left_out_wherever_it_stands(liar):
    """Among 30 million choices of 20 from 30 shares."""
    terms = Cohort(names(30), 20).terms
    secret = bytes(range(16))
    told = shares.split(secret, "site-002", terms)
    told[names(30)[liar]] = bytes(16)
    assert shares.reconstruct(told, "site-002", terms, lambda s: s == secret) == secret
