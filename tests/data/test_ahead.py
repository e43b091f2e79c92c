"""Prepared before a run: all of it once, and what a human should look at in a table."""

from typing import Any

import pytest
from heads import scan, site, task

from fedcore.config.task import Task
from fedcore.data import alignment, bids, preparing
from fedcore.data.ahead import learn_landmarks, prepare_ahead
from fedcore.data.participants import split_of
from fedcore.data.site import SiteData
from fedcore.data.verdicts import TABLE
from fedcore.errors import ConfigError, DataError
from fedcore.store.memory import MemoryStore

ALIGNED = {"reference": "t1ce", "align": "rigid"}


@pytest.fixture
def store() -> MemoryStore:
    """sub-2's FLAIR is another patient's; sub-4 never consented."""
    found = MemoryStore()
    site(found, {f"sub-{n}": {"t1ce": scan(0, "t1ce"), "flair": scan(int(n == 2), "flair")}
                 for n in (1, 2)})  # fmt: skip
    found.put("sub-3/notes.txt", b"")
    table = found.get("participants.tsv") + b"sub-4\tglioma\tother\n"
    found.put("participants.tsv", table)
    return found


def ahead(store: MemoryStore, asked: Task, **named: Any) -> Any:
    return prepare_ahead(asked, store, "study", workers=1, **named)


def test_another_patients_image_is_listed_and_a_verdict_settles_it(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, pictures, totals = task("t1ce", "flair", **ALIGNED), {}, []
    done = ahead(store, asked, on_total=totals.append, on_picture=pictures.__setitem__)
    assert totals == [4]
    assert (done.subjects, done.used, done.images) == (4, 2, {"t1ce": 2, "flair": 1})
    assert done.left_out == {
        "alignment to be looked at": 1,
        "no consent for this purpose": 1,
        "not listed in participants.tsv": 1,
    }
    assert [(subject, doubt.modality) for subject, doubt in done.doubts] == [("sub-2", "flair")]
    assert done.undecided == 1
    assert list(pictures) == ["sub-2"]
    assert pictures["sub-2"].startswith(b"\x89PNG")

    table = store.get(TABLE).decode()
    monkeypatch.setattr(alignment, "align", _no_more)  # all else is found
    monkeypatch.setattr(preparing, "prepare", _no_more)
    assert ahead(store, asked).undecided == 1
    assert store.get(TABLE).decode() == table
    monkeypatch.undo()

    store.put(TABLE, table.replace("\tn/a\t", "\taccept\t").encode())
    settled = ahead(store, asked)
    assert settled.images == {"t1ce": 2, "flair": 2}
    assert settled.undecided == 0
    assert "accept" in store.get(TABLE).decode(), "the verdict stays in the table"
    data = bids.dataset(SiteData(asked, store, "study"), fractions=(1, 0, 0))["train"]
    assert data.summary.modalities == {"t1ce": 2, "flair": 2}


def _no_more(*_: Any) -> Any:
    raise AssertionError("prepared a second time")


def test_a_verdict_that_is_none_is_told_with_its_line(store: MemoryStore) -> None:
    store.put(TABLE, b"participant_id\tmodality\tpair\tverdict\nsub-1\tct\t00\tmaybe\n")
    with pytest.raises(DataError, match=r"line 2: verdict 'maybe'; write accept"):
        ahead(store, task("t1ce"))
    store.put(TABLE, b"participant_id\tmodality\n")
    with pytest.raises(DataError, match="no column pair, verdict"):
        ahead(store, task("t1ce"))


def test_a_verdict_of_another_plan_is_not_lost(store: MemoryStore) -> None:
    line = "sub-1\tct\t0123456789abcdef\treject"
    store.put(TABLE, f"participant_id\tmodality\tpair\tverdict\n{line}\n".encode())
    ahead(store, task("t1ce"))
    assert line in store.get(TABLE).decode()


def test_pictures_of_every_subject_on_request(store: MemoryStore) -> None:
    pictures: dict[str, bytes] = {}
    ahead(store, task("t1ce"), on_picture=pictures.__setitem__, every_picture=True)
    assert sorted(pictures) == ["sub-1", "sub-2"]


def test_landmarks_are_the_training_subjects_own_and_not_of_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fedcore.data.ahead.LANDMARKS_FROM", 4)
    store = MemoryStore()
    names = [f"sub-{n}" for n in range(9)]
    site(store, {name: {"t1ce": scan(n % 2, "t1ce")} for n, name in enumerate(names)})
    train = [name for name in names if split_of(name, bids.FRACTIONS) == "train"]
    assert 4 <= len(train) < 9
    learnt = learn_landmarks(task("t1ce"), store, "study", workers=1)["t1ce"]
    assert (learnt[0], learnt[-1], len(learnt)) == (0, 1, 11)
    for name in names:
        if name not in train:
            store.put(f"{name}/anat/{name}_ce-gadolinium_T1w.nii.gz", scan(0, "flair"))
    assert learn_landmarks(task("t1ce"), store, "study", workers=1)["t1ce"] == learnt
    with pytest.raises(DataError, match="landmarks need 4"):
        learn_landmarks(
            task("t1ce", dataset={"fractions": [0.05, 0.45, 0.5]}), store, "study", workers=1
        )


def test_what_cannot_be_prepared_ahead_is_refused(store: MemoryStore) -> None:
    plain = task("t1ce").model_copy(update={"preprocessing": None})
    with pytest.raises(ConfigError, match=r"no task.preprocessing.*as preprocessing: \{\}"):
        ahead(store, plain)
    own = task("t1ce").dataset.model_copy(update={"function": "my.study:dataset"})
    with pytest.raises(ConfigError, match=r"my.study:dataset prepares its images itself"):
        ahead(store, task("t1ce").model_copy(update={"dataset": own}))
