from __future__ import annotations

import json

import pytest
from cohort import Cohort, names
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import OrderRefused, UpdateRejected
from fedcore.privacy.secagg import Revealed, Roster, Shares, Signatures, Surviving

COHORT = Cohort(names(3), 2)
MESSAGES = [
    COHORT.roster[0],
    Roster(tuple(COHORT.roster)),
    Shares({"east": bytes(60), "west": bytes(range(60))}),
    Surviving(("east", "north", "west"), ("east", "west")),
    Signatures({"east": bytes(64)}),
    Revealed({"east": bytes(16)}, {"west": bytes(range(16))}),
]
KINDS = [type(message) for message in MESSAGES]
each = pytest.mark.parametrize("message", MESSAGES, ids=[kind.__name__ for kind in KINDS])

leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=90)
    | st.sampled_from(["AAAA", "=", "A" * 43 + "=", "east", ""])
)  # fmt: skip
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@each
def test_a_message_comes_back_as_it_was(message):
    assert type(message).from_json(json.loads(json.dumps(message.to_json()))) == message


@settings(deadline=None)
@given(st.sampled_from(KINDS), anything)
def test_what_is_no_message_is_refused_and_nothing_else_happens(kind, body):
    with pytest.raises(UpdateRejected, match="message"):
        kind.from_json(body)
    with pytest.raises(OrderRefused, match="message"):
        kind.from_json(body, OrderRefused)


@settings(deadline=None)
@given(st.sampled_from(MESSAGES), st.data())
def test_a_message_with_one_part_replaced_is_refused_or_well_formed(message, data):
    body = json.loads(json.dumps(message.to_json()))
    inner, part = body, data.draw(st.sampled_from(sorted(body)))
    while isinstance(inner[part], dict | list) and inner[part] and data.draw(st.booleans()):
        inner = inner[part]
        part = data.draw(
            st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner)))
        )
    inner[part] = data.draw(anything)
    try:
        read = type(message).from_json(body)
    except UpdateRejected:
        return
    assert type(message).from_json(read.to_json()) == read


@each
def test_a_part_too_many_or_missing_is_refused(message):
    body = message.to_json()
    with pytest.raises(UpdateRejected, match="exactly"):
        type(message).from_json(body | {"extra": 1})
    for part in body:
        with pytest.raises(UpdateRejected, match="exactly"):
            type(message).from_json({k: v for k, v in body.items() if k != part})


@pytest.mark.parametrize(
    "signature",
    ["", "A" * 86, "A" * 86 + "==\n", " " + "A" * 86 + "==", "A" * 85 + "B==", "é" * 88, None, 7],
)
def test_bytes_have_one_spelling(signature):
    assert Signatures.from_json({"signatures": {"east": "A" * 86 + "=="}})
    with pytest.raises(UpdateRejected, match="64 bytes in base64"):
        Signatures.from_json({"signatures": {"east": signature}})


def test_both_secrets_of_one_site_are_never_read():
    both = Revealed({"east": bytes(16)}, {"east": bytes(16)})
    with pytest.raises(UpdateRejected, match="both secrets of east"):
        Revealed.from_json(both.to_json())


@pytest.mark.parametrize("sites", [["east", "east"], ["ea\nst"], [""], [7], "east", ["x" * 300]])
def test_sites_are_names_each_once(sites):
    with pytest.raises(UpdateRejected):
        Surviving.from_json({"senders": sites, "survivors": []})
