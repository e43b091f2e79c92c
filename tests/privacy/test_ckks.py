from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcore.errors import ConfigError, OrderRefused, UpdateRejected
from fedcore.privacy import ckks
from fedcore.privacy.ckks.parameters import FLOOD, flood_deviation, sum_deviation
from fedcore.privacy.ckks.release import flooded

CONTEXT = b"run-1/round-3/attempt-1"
few = settings(max_examples=25, deadline=None)


@cache
def study(bound: float = 1.0, summands: int = 20) -> tuple[ckks.Parameters, bytes, bytes]:
    """(parameters, secret context, public context); a key costs little, but not nothing."""
    parameters = ckks.fitting(bound, summands)
    return parameters, *ckks.generate(parameters)


def summed(vectors, parameters, secret, public):
    """What the server has at the end of a round: (the sum, its tag, the sites)."""
    total, tags = ckks.Sum(public, parameters, vectors[0].size), []
    for index, vector in enumerate(vectors):
        total.add(list(ckks.encrypt(vector, secret, parameters)), f"site-{index}")
        tags.append(ckks.tag(vector, secret, parameters, CONTEXT, f"site-{index}"))
    return total, ckks.add_tags(tags), [f"site-{index}" for index in range(len(vectors))]


def released(vectors, parameters, secret, public):
    total, tag, sites = summed(vectors, parameters, secret, public)
    return ckks.release(total.chunks(), vectors[0].size, tag, sites, 1, secret, parameters, CONTEXT)


@few
@given(
    hnp.arrays(np.float32, st.integers(1, 5000), elements=st.floats(-1, 1, width=32)),
)
def test_a_vector_comes_back_within_the_bound(values):
    parameters, secret, public = study()
    result = released([values], parameters, secret, public)
    assert result.shape == values.shape
    assert result.dtype == np.float64
    assert np.abs(result - values).max() <= ckks.error_bound(parameters, 1)


@pytest.mark.parametrize("n_sites", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("kind", ["random", "extreme", "equal"])
def test_a_sum_is_within_the_bound_and_the_bound_says_something(n_sites, kind):
    parameters, secret, public = study()
    rng = np.random.default_rng(n_sites)
    vectors = {
        "random": [rng.uniform(-1, 1, 9000).astype(np.float32) for _ in range(n_sites)],
        "extreme": [rng.choice([-1.0, 1.0], 9000) for _ in range(n_sites)],
        "equal": [np.full(9000, 1.0)] * n_sites,
    }[kind]
    error = released(vectors, parameters, secret, public) - np.sum(vectors, 0, dtype=np.float64)
    bound = ckks.error_bound(parameters, n_sites)
    assert np.abs(error).max() <= bound
    assert bound <= 3 * np.abs(error).max()  # 9000 values reach 4 deviations of 8


@pytest.mark.parametrize(("bound", "summands"), [(0.01, 3), (1.0, 1), (1.0, 100), (50.0, 300)])
def test_the_sum_is_right_to_one_step_of_the_grid_that_was_asked_for(bound, summands):
    parameters, secret, public = study(bound, summands)
    assert ckks.error_bound(parameters, summands) <= bound / 2**19
    whole = np.full(3, bound)
    total = ckks.Sum(public, parameters, 3)
    for _ in range(summands):
        total.add(list(ckks.encrypt(whole, secret, parameters)))
    sums = ckks.decrypt(total.chunks(), secret, parameters, 3)
    assert np.abs(sums - summands * whole).max() <= bound / 2**19


def test_the_errors_are_as_large_as_derived():
    parameters, secret, public = study()
    vectors = [np.random.default_rng(i).uniform(-1, 1, 40_000) for i in range(10)]
    total, _, _ = summed(vectors, parameters, secret, public)
    raw = ckks.decrypt(total.chunks(), secret, parameters, 40_000)
    fresh = (raw - np.sum(vectors, 0)).std() / parameters.unit
    derived = sum_deviation(parameters.poly_modulus_degree, 10)
    assert 0.8 * derived <= fresh <= derived  # sites' rounding errors are not equal here
    noise = (flooded(raw, 10, secret, parameters) - raw).std() / parameters.unit
    assert noise == pytest.approx(flood_deviation(parameters.poly_modulus_degree, 10), rel=0.05)
    assert noise > 0.9 * FLOOD * fresh


def test_what_is_released_is_on_a_grid_and_the_same_when_asked_again():
    parameters, secret, public = study()
    vectors = [np.linspace(-1, 1, 3000)] * 3
    total, tag, sites = summed(vectors, parameters, secret, public)
    once, again = (
        ckks.release(total.chunks(), 3000, tag, sites, 2, secret, parameters, CONTEXT)
        for _ in range(2)
    )
    assert (once == again).all()
    deviation = flood_deviation(parameters.poly_modulus_degree, 3) * parameters.unit
    step = 2.0 ** math.floor(math.log2(deviation))
    assert (once / step == np.rint(once / step)).all()


def test_a_value_that_is_not_clipped_is_not_encrypted():
    parameters, secret, _ = study()
    for value in (1.001, -1.001, np.nan, np.inf):
        with pytest.raises(ValueError, match="clip first"):
            list(ckks.encrypt(np.array([0.0, value]), secret, parameters))
    assert list(ckks.encrypt(np.array([1 + 1e-8]), secret, parameters))


def test_chunks_come_one_at_a_time():
    parameters, secret, _ = study()
    values = np.zeros(2 * parameters.slots)
    values[-1] = 2.0
    stream = ckks.encrypt(values, secret, parameters)
    assert len(next(stream)) <= ckks.expansion(parameters) * 4 * parameters.slots
    with pytest.raises(ValueError, match="clip first"):
        next(stream)


def test_packed_chunks_come_apart_again():
    parameters, secret, _ = study()
    chunks = list(ckks.encrypt(np.zeros(5000), secret, parameters))
    packed = ckks.pack(chunks)
    assert ckks.unpack(packed, 5000, parameters) == chunks
    for broken in (packed[:-1], packed[:2], b"", packed + packed, packed + b"\0"):
        with pytest.raises(UpdateRejected, match="site-7"):
            ckks.unpack(broken, 5000, parameters, "site-7")
    with pytest.raises(UpdateRejected, match="at most"):
        ckks.unpack(ckks.pack([bytes(70_000)]), 1, parameters)


def test_a_site_is_added_whole_or_not_at_all():
    parameters, secret, public = study()
    good = list(ckks.encrypt(np.full(5000, 0.5), secret, parameters))
    total = ckks.Sum(public, parameters, 5000)
    total.add(good)
    with pytest.raises(UpdateRejected, match="site-2"):
        total.add([*good[:-1], b"nonsense"], "site-2")
    assert total.n_sites == 1
    sums = ckks.decrypt(total.chunks(), secret, parameters, 5000)
    assert np.abs(sums - 0.5).max() <= ckks.error_bound(parameters, 1)


def test_a_sum_takes_no_more_sites_than_it_has_room_for():
    parameters, secret, public = study(1.0, 1)
    total = ckks.Sum(public, parameters, 1)
    chunks = list(ckks.encrypt(np.zeros(1), secret, parameters))
    total.add(chunks)
    with pytest.raises(UpdateRejected, match="already"):
        total.add(chunks)
    with pytest.raises(ValueError, match="no site"):
        next(ckks.Sum(public, parameters, 1).chunks())


def test_a_sum_of_another_length_is_not_decrypted():
    parameters, secret, _ = study()
    chunks = list(ckks.encrypt(np.zeros(3000), secret, parameters))
    for length in (2000, 5000):
        with pytest.raises(UpdateRejected, match="the sum"):
            ckks.decrypt(chunks, secret, parameters, length)


def test_parameters_without_128_bit_security_are_refused():
    good = ckks.fitting(1.0, 10)
    assert good.security >= 128
    with pytest.raises(ConfigError, match="128-bit"):
        replace(good, coeff_mod_bit_sizes=(60, 50))
    with pytest.raises(ConfigError, match="use one of"):
        replace(good, poly_modulus_degree=4000)
    assert replace(good, coeff_mod_bit_sizes=(60, 49)).security == 192
    with pytest.raises(ConfigError, match="does not fit"):
        replace(good, summands=100)
    with pytest.raises(ConfigError, match="smaller"):
        ckks.fitting(1.0, 1000, bits=30)


def test_a_larger_degree_works_too():
    usual = ckks.Parameters(8192, (60, 40, 60), 2.0**40, 1.0, 10)
    secret, public = ckks.generate(usual)
    vectors = [np.linspace(-1, 1, 5000)] * 3
    error = released(vectors, usual, secret, public) - 3 * vectors[0]
    assert np.abs(error).max() <= ckks.error_bound(usual, 3)
    assert ckks.expansion(usual) == 16


def test_the_key_reaches_the_site_that_it_was_sealed_to():
    _, secret, _ = study()
    site = X25519PrivateKey.generate()
    sealed = ckks.seal_secret(secret, site.public_key().public_bytes_raw(), CONTEXT)
    assert ckks.open_secret(sealed, site, CONTEXT) == secret


def test_the_tag_check_passes_at_any_size():
    for size in (1, 2048, 70_000):
        parameters, secret, public = study()
        rng = np.random.default_rng(size)
        released([rng.uniform(-1, 1, size) for _ in range(20)], parameters, secret, public)


def test_memory_does_not_grow_with_the_sites():
    few_sites, many_sites = (peak_megabytes(n) for n in (8, 50))
    assert many_sites - few_sites <= 30  # MB; to keep 42 sites' ciphertexts would take 126


def peak_megabytes(n_sites: int) -> float:
    """Of a fresh process that adds ``n_sites`` vectors of 100 000 values."""
    script = f"""
import numpy as np
from fedcore.privacy import ckks
parameters = ckks.fitting(1.0, 64)
secret, public = ckks.generate(parameters)
total = ckks.Sum(public, parameters, 100_000)
for site in range({n_sites}):
    total.add(list(ckks.encrypt(np.full(100_000, 0.1), secret, parameters)))
with open("/proc/self/status") as status:  # not ru_maxrss: a child inherits its parent's
    print(next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM")))
"""
    steady = os.environ | {"MALLOC_ARENA_MAX": "1"}  # else it depends on the threads' timing
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=steady
    )
    return float(done.stdout)


LIKE = {
    "encoder.mri.w": np.zeros((4, 5), np.float32),
    "encoder.pet.w": np.zeros((2, 5), np.float32),
    "head.b": np.zeros(3, np.float32),
}


def test_modules_are_selected_by_name():
    selection = ckks.select(LIKE, ["encoder.*"])
    assert {name: mask.all() for name, mask in selection.items()} == {
        "encoder.mri.w": True, "encoder.pet.w": True, "head.b": False,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"fusion\.\*"):
        ckks.select(LIKE, ["fusion.*"])


@few
@given(st.floats(0.01, 1.0), st.integers(0, 2**32 - 1))
def test_the_share_that_is_selected_is_the_most_sensitive(share, seed):
    rng = np.random.default_rng(seed)
    last = {name: rng.integers(-9, 9, a.shape).astype(np.float32) for name, a in LIKE.items()}
    selection = ckks.select(LIKE, ["encoder.*"], share, last)
    inside = np.concatenate([np.abs(last[n][selection[n]]) for n in LIKE])
    outside = np.concatenate([np.abs(last[n][~selection[n]]) for n in LIKE if n != "head.b"])
    assert inside.size == math.ceil(share * 30)
    assert outside.size == 0 or inside.min() >= outside.max()
    assert not selection["head.b"].any()


def test_all_is_selected_where_nothing_is_known_yet():
    assert all(mask.all() for mask in ckks.select(LIKE, share=0.1).values())


def test_a_selection_that_cannot_be_made_is_refused():
    for share in (0, -0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"\(0, 1\]"):
            ckks.select(LIKE, share=share)
    with pytest.raises(ValueError, match="no sensitivity"):
        ckks.select(LIKE, share=0.5, sensitivity={"head.b": LIKE["head.b"]})
    unknown = {name: np.full_like(a, np.nan) for name, a in LIKE.items()}
    with pytest.raises(ValueError, match="NaN"):
        ckks.select(LIKE, share=0.5, sensitivity=unknown)


@few
@given(st.integers(0, 2**32 - 1))
def test_what_is_split_joins_again(seed):
    rng = np.random.default_rng(seed)
    vector, selection = rng.normal(size=33), rng.random(33) < rng.random()
    secret, rest = ckks.split(vector, selection)
    assert (ckks.join(secret, rest, selection) == vector).all()
    with pytest.raises(ValueError, match="selection"):
        ckks.join(np.append(secret, 0.0), rest, selection)
    with pytest.raises(ValueError, match="selection"):
        ckks.split(vector[1:], selection)


def test_the_flat_selection_follows_the_layout_of_an_update_and_holds_all_weights():
    selection = ckks.flat(ckks.select(LIKE, ["head.*"]), weights=3)
    assert selection.tolist() == [False] * 30 + [True] * 6


def test_the_tolerance_refuses_what_a_small_site_would_add():
    parameters, secret, public = study()
    vectors = [np.full(10_000, 1e-6), np.full(10_000, 0.5)]  # the first has norm 10^-4
    _, tag, sites = summed(vectors, parameters, secret, public)
    alone = ckks.encrypt(vectors[1], secret, parameters)
    with pytest.raises(OrderRefused, match="left some out"):
        ckks.release(alone, 10_000, tag, sites, 2, secret, parameters, CONTEXT)
