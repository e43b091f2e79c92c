import pytest

from fedcore.data import consent
from fedcore.errors import DataError


@pytest.mark.parametrize(
    "recorded", ["study-a", "study-b study-a", "study-b;study-a", "x; study-a"]
)
def test_a_listed_purpose_is_consent(recorded: str) -> None:
    assert consent.objection(recorded, "study-a") is None


@pytest.mark.parametrize("recorded", ["", "study-b", "study-a-2", "STUDY-A", "all", "study"])
def test_anything_else_is_none(recorded: str) -> None:
    assert consent.objection(recorded, "study-a") == "no consent for this purpose"


@pytest.mark.parametrize("recorded", ["n/a", "study-a n/a", "n/a;study-a"])
def test_a_withdrawal_outweighs_what_stands_beside_it(recorded: str) -> None:
    assert consent.objection(recorded, "study-a") == "consent withdrawn"


def test_no_column_is_no_consent_and_the_message_names_the_way_out() -> None:
    consent.require_column(("participant_id", "consent"), "consent", source="participants.tsv")
    with pytest.raises(DataError, match="consent_column: null") as caught:
        consent.require_column(("participant_id",), "consent", source="participants.tsv")
    assert caught.value.reason == "no consent is recorded"
