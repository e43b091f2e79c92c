"""Every codec: what comes back, how far it is off, and that nothing else can be got out of it."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from coded import FEW_BITS, SIGNS, TOP_K
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcore.compression import feedback, packing, rotation, sparsify
from fedcore.compression.chain import Chain, chain
from fedcore.compression.codec import Turn, joined, shapes_of
from fedcore.compression.quantize import BLOCK
from fedcore.errors import UpdateRejected
from fedcore.params import Params

LOW_RANK = {"stage": "low_rank", "rank": 2}
EVERY_THIRD = {"stage": "subsample", "every": 3}
HALF = {"stage": "float16"}
CHAINS: dict[str, list[dict[str, Any]]] = {
    "float32": [],
    "half": [HALF],
    "bits": [{"stage": "quantise", "bits": 4}],
    "rotated": [FEW_BITS],
    "one bit": [SIGNS],
    "top": [TOP_K],
    "top signs": [TOP_K, SIGNS],
    "low rank": [LOW_RANK],
    "turns": [EVERY_THIRD],
    "all": [LOW_RANK, TOP_K, HALF],
    "turns, bits": [EVERY_THIRD, FEW_BITS],
}
TURN = Turn(7, 3, "north")
few = settings(max_examples=30, deadline=None)
floats = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
updates = st.fixed_dictionaries(
    {
        "body.weight": hnp.arrays(np.float32, (6, 2, 5), elements=floats),
        "body.bias": hnp.arrays(np.float32, (1,), elements=floats),
        "head.scale": hnp.arrays(np.float32, (), elements=floats),
    }
)


def made(name: str, *, unbiased: bool = False) -> Chain:
    return chain(CHAINS[name], unbiased=unbiased)


def normal(*shape: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"w": rng.standard_normal(shape, np.float32), "b": rng.standard_normal(3, np.float32)}


def norm(params: Params) -> float:
    return float(np.linalg.norm(joined(params).astype(np.float64)))


def off(one: Params, other: Params) -> float:
    return norm({name: one[name] - other[name] for name in one})


@pytest.mark.parametrize("name", CHAINS)
@few
@given(updates)
def test_what_comes_back_has_names_shapes_and_type_and_is_the_same_again(
    name: str, update: Params
) -> None:
    codec = made(name, unbiased=True)
    coded = codec.encode(update, TURN)
    back = codec.decode(coded, update, TURN)
    assert shapes_of(back) == shapes_of(update)
    assert {array.dtype for array in back.values()} == {np.dtype(np.float32)}
    again = codec.encode(update, TURN)
    assert {k: a.tobytes() for k, a in coded.items()} == {k: a.tobytes() for k, a in again.items()}


@pytest.mark.parametrize("name", CHAINS)
@few
@given(updates)
def test_with_feedback_the_error_is_never_larger_than_the_update(name: str, update: Params) -> None:
    """So that what is left over cannot grow without bound (Karimireddy et al. 2019, Lemma 3)."""
    codec = made(name)
    back = codec.decode(codec.encode(update, TURN), update, TURN)
    assert off(back, update) <= norm(update) * 1.001 + 1e-6


@pytest.mark.parametrize("size", [0, 1, 7, 8, 1000, BLOCK, BLOCK + 1, 300_000])
@pytest.mark.parametrize("name", CHAINS)
def test_every_size(name: str, size: int) -> None:
    update = {"w": np.linspace(-1, 1, size, dtype=np.float32)}
    back = made(name).decode(made(name).encode(update, TURN), update, TURN)
    assert back["w"].shape == (size,)
    assert off(back, update) <= norm(update) * 1.001


@pytest.mark.parametrize(
    ("name", "bound"),
    [("half", 1e-6), ("rotated", 0.05), ("one bit", 0.4), ("top signs", 0.35), ("top", 0.25)],
)
def test_how_far_normal_values_are_off(name: str, bound: float) -> None:
    """Squared error over squared norm; of a bit, 1 − 2/π = 0.363 (Vargaftik et al. 2021)."""
    update = normal(64, 1024)
    back = made(name).decode(made(name).encode(update, TURN), update, TURN)
    assert off(back, update) ** 2 < bound * norm(update) ** 2


@few
@given(updates)
def test_half_rounds_to_nearest_and_saturates(update: Params) -> None:
    codec = made("half")
    wanted = {name: array * np.float32(30) for name, array in update.items()}
    back = joined(codec.decode(codec.encode(wanted, TURN), wanted, TURN)).astype(np.float64)
    limited = np.clip(joined(wanted).astype(np.float64), -65504, 65504)
    assert (np.abs(back - limited) <= np.maximum(np.abs(limited) * 2.0**-11, 2.0**-25)).all()


@few
@given(st.integers(1, 8), hnp.arrays(np.float32, st.integers(1, 40), elements=floats))
def test_random_rounding_is_off_by_a_step_at_most(bits: int, values: np.ndarray) -> None:
    codec, update = chain([{"stage": "quantise", "bits": bits}], unbiased=True), {"w": values}
    back = codec.decode(codec.encode(update, TURN), update, TURN)["w"].astype(np.float64)
    step = 2 * np.abs(values.astype(np.float64)).max() / (2**bits - 1)
    assert np.abs(back - values).max() <= step * 1.0001 + 1e-30


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4])
def test_random_rounding_is_unbiased(bits: int, rotate: bool) -> None:
    """The mean over many senders is within five of its own standard errors of the values."""
    codec = chain([{"stage": "quantise", "bits": bits, "rotate": rotate}], unbiased=True)
    update = {"w": np.linspace(-1, 3, 50, dtype=np.float32) ** 3}
    drawn = np.array([
        codec.decode(codec.encode(update, turn), update, turn)["w"]
        for turn in (Turn(7, 3, str(sender)) for sender in range(1000))
    ])  # fmt: skip
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - update["w"]) <= 5 * error + 1e-3).all()
    assert error.max() > 0


def test_rounding_differs_by_sender_and_round_and_rotation_by_round() -> None:
    codec, update = made("rotated", unbiased=True), normal(50)
    codes = {
        codec.encode(update, Turn(7, *where))["0/codes"].tobytes()
        for where in ((0, "a"), (0, "b"), (1, "a"))
    }
    assert len(codes) == 3


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@few
@given(st.data())
def test_packing_is_undone(width: int, data: st.DataObject) -> None:
    size = 8 * data.draw(st.integers(0, 9))
    values = data.draw(hnp.arrays(np.uint8, size, elements=st.integers(0, 2**width - 1)))
    packed = packing.pack(values, width)
    assert packed.nbytes * 8 == size * width
    assert packing.unpack(packed, width).tolist() == values.tolist()


@few
@given(st.sets(st.integers(0, 5000), min_size=1))
def test_gaps_tell_the_places(places: set[int]) -> None:
    wanted = np.array(sorted(places))
    assert sparsify._places(sparsify._gaps(wanted, last=-1)).tolist() == wanted.tolist()


def test_rotation_is_undone_and_keeps_lengths() -> None:
    rng = np.random.default_rng(1)
    columns = rng.standard_normal((1024, 5), np.float32)
    before, signs = columns.copy(), rotation.signs(rng, 1024)
    rotation.rotate(columns, signs)
    np.testing.assert_allclose(
        np.linalg.norm(columns, axis=0), np.linalg.norm(before, axis=0), rtol=1e-5
    )
    assert np.abs(columns - before).max() > 1
    rotation.rotate_back(columns, signs)
    np.testing.assert_allclose(columns, before, atol=1e-5)


def test_rotation_spreads_one_value_over_all() -> None:
    columns = np.zeros((1024, 1), np.float32)
    columns[17] = 32
    rotation.rotate(columns, rotation.signs(np.random.default_rng(0), 1024))
    np.testing.assert_allclose(np.abs(columns), 1, rtol=1e-6)


def test_top_k_keeps_the_largest_and_no_zero() -> None:
    update = {"w": np.array([0, 3, -5, 0, 1, 0, 0, 0, 0, 0], np.float32)}
    codec = made("top")
    assert codec.decode(codec.encode(update, TURN), update, TURN)["w"].tolist() == [
        0, 3, -5, 0, 1, 0, 0, 0, 0, 0,
    ]  # fmt: skip
    nothing = {"w": np.zeros(10, np.float32)}
    assert codec.encode(nothing, TURN)["kept"].size == 0


def test_top_k_of_many_values_keeps_about_its_share() -> None:
    update = {"w": np.random.default_rng(2).standard_normal(1_000_000, np.float32)}
    kept = made("top").encode(update, TURN)["kept"].size
    assert abs(kept / 1e6 - TOP_K["share"]) < 0.01


def test_a_matrix_of_low_rank_comes_back() -> None:
    rng = np.random.default_rng(3)
    product = rng.standard_normal((30, 2)) @ rng.standard_normal((2, 40))
    update = {"w": product.reshape(30, 8, 5).astype(np.float32)}
    coded = made("low rank").encode(update, TURN)
    assert coded["w"].size == 2 * (30 + 40)
    back = made("low rank").decode(coded, update, TURN)
    np.testing.assert_allclose(back["w"], update["w"], atol=1e-4)


def test_in_a_cycle_every_value_has_its_turn_once() -> None:
    update = {"w": np.arange(1, 18, dtype=np.float32).reshape(17, 1), "b": np.float32([5])}
    codec = made("turns")
    for cycle in range(3):
        turns = [Turn(7, round_num, "a") for round_num in range(3 * cycle, 3 * cycle + 3)]
        got = [codec.decode(codec.encode(update, turn), update, turn) for turn in turns]
        for name, wanted in update.items():
            assert np.array_equal(sum(part[name] for part in got), wanted)


def test_additive_is_what_needs_nothing_of_a_single_update() -> None:
    assert {name for name in CHAINS if made(name).additive} == {"float32", "turns"}


@pytest.mark.parametrize("name", ["float32", "turns"])
def test_of_additive_codecs_sums_commute(name: str) -> None:
    codec, ones = made(name), [normal(6, 11, seed=seed) for seed in range(3)]
    coded = [codec.encode(one, Turn(7, 3, str(seed))) for seed, one in enumerate(ones)]
    total = {key: sum(part[key].astype(np.float64) for part in coded) for key in coded[0]}
    back = codec.expand(total, shapes_of(ones[0]), TURN)
    each = [codec.decode(part, one, TURN) for part, one in zip(coded, ones, strict=True)]
    for key in back:
        np.testing.assert_allclose(back[key], sum(part[key] for part in each), atol=1e-5)


@pytest.mark.parametrize("name", CHAINS)
def test_feedback_loses_nothing(name: str) -> None:
    """What was sent over all rounds and what is left add up to the updates."""
    codec, rest = made(name), dict[str, np.ndarray]()
    sums = [{"w": np.zeros((6, 11)), "b": np.zeros(3)} for _ in range(2)]
    for round_num in range(12):
        update, turn = normal(6, 11, seed=round_num), Turn(7, round_num, "a")
        wanted = feedback.with_rest(update, rest)
        sent = codec.decode(codec.encode(wanted, turn), wanted, turn)
        rest = feedback.rest_of(wanted, sent, rest)
        for total, part in zip(sums, (update, sent), strict=True):
            for key in total:
                total[key] += part[key]
    for key, total in sums[0].items():
        np.testing.assert_allclose(sums[1][key] + rest[key], total, atol=1e-4)
    assert norm(rest) < 8 * norm(normal(6, 11)), "what is left stays bounded"


def test_what_was_left_of_a_module_waits_for_the_module() -> None:
    rest = {"pet.w": np.ones(2, np.float32)}
    update = {"ct.w": np.ones(1, np.float32)}
    assert feedback.with_rest(update, rest) == update
    kept = feedback.rest_of(update, {"ct.w": np.zeros(1, np.float32)}, rest)
    assert set(kept) == {"pet.w", "ct.w"}


def hostile(coded: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The coded update with each array gone, longer, shorter, of another type, or one too many."""
    changed = [{**coded, "0/more": np.zeros(1, np.uint8)}, {**coded, "more": np.zeros(1, "f4")}, {}]
    for name, array in coded.items():
        for other in (
            np.zeros(array.size + 8, array.dtype),
            array.reshape(-1)[:-1],
            array.reshape(1, -1),
            array.astype(np.float64),
            array.astype(np.int8),
        ):
            changed.append({**coded, name: other})
        changed.append({key: a for key, a in coded.items() if key != name})
    return changed


@pytest.mark.parametrize("name", [name for name in CHAINS if CHAINS[name]])
def test_hostile_arrays_are_rejected(name: str) -> None:
    codec, update = made(name), normal(4, 20)
    accepted = []
    for arrays in hostile(codec.encode(update, TURN)):
        with suppress(UpdateRejected):
            accepted.append(shapes_of(codec.decode(arrays, update, TURN)))
    # One gap less may be another update, whose last value lies among the bits that fill a byte.
    assert accepted in ([], [shapes_of(update)] * (name == "top signs"))


@pytest.mark.parametrize("gaps", [[255] * 50 + [0], [0] * 84, [200], [83, 0]])
def test_places_beyond_the_last_parameter(gaps: list[int]) -> None:
    update = normal(4, 20)
    kept = np.ones(sum(gap != 255 for gap in gaps), np.float32)
    with pytest.raises(UpdateRejected, match="beyond the last parameter"):
        made("top").decode({"0/gaps": np.array(gaps, np.uint8), "kept": kept}, update, TURN)


@pytest.mark.parametrize("name", ["rotated", "top signs", "half", "bits"])
def test_memory_goes_with_the_model(name: str) -> None:
    """Whatever is in the arrays, decoding takes a few times the float32 update at most."""
    update = {"w": np.random.default_rng(0).standard_normal(400_000, np.float32)}
    coded = made(name).encode(update, TURN)
    worst = {
        key: np.zeros_like(array) if key == "0/gaps" else np.full_like(array, 255)
        for key, array in coded.items()
    }
    tracemalloc.start()
    try:
        made(name).decode(worst, update, TURN)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * update["w"].nbytes + (1 << 23)
