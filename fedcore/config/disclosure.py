"""What the server sees of a site under a plan, in words: for reports, model cards and tables.

Everything here follows from the plan's fields alone. Why it holds, against whom, and what remains
is in docs/threat-model.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedcore.config.learning import Training
from fedcore.config.protection import Privacy, SecureAggregation

NOT_TOLD = "not told (secure aggregation)"
"""In place of a figure by site that a secure plan keeps from the server."""

Answer = tuple[str, str]
"""What one may ask, and the answer."""


def secure_of(plan: Mapping[str, Any]) -> SecureAggregation:
    """The section of a plan that was dumped, which may lack it."""
    return SecureAggregation.model_validate(plan.get("secure_aggregation") or {})


def _privacy_of(plan: Mapping[str, Any]) -> Privacy:
    return Privacy.model_validate(plan.get("privacy") or {})


def hides_sites(plan: Mapping[str, Any]) -> bool:
    """Whether loss, update norm, weights and modalities by site are kept from the server."""
    return secure_of(plan).mode != "none"


def hides_figures(plan: Mapping[str, Any]) -> bool:
    """Whether evaluation figures by site and by group are kept from the server too."""
    return hides_sites(plan) and secure_of(plan).statistics


def in_the_open(secure: SecureAggregation) -> bool:
    """Whether a part of each site's update travels so that the server can read it, by choice."""
    return secure.mode == "ckks" and secure.selective and secure.rest == "plain"


def server_sees(plan: Mapping[str, Any]) -> str:
    """In one line, what the server sees of the updates.

    >>> server_sees({}), server_sees({"secure_aggregation": {"mode": "masks"}})
    ('every update, whole', 'the sum of the updates')
    """
    secure = secure_of(plan)
    if secure.mode == "none":
        return "every update, whole"
    if in_the_open(secure):
        return f"the sum, and of every update all but {_encrypted(secure)}"
    noisy = _privacy_of(plan).noise_by == "sites"
    return "the sum of the updates, with noise" if noisy else "the sum of the updates"


def disclosure(plan: Mapping[str, Any]) -> list[Answer]:
    """What the server sees under the plan, and who else would have to help it to see more."""
    secure = secure_of(plan)
    hidden = hides_sites(plan)
    told = _beside_the_weights(plan)
    return [
        ("Of one site's update", _of_one(secure)),
        ("Of the sum over the sites", _of_the_sum(plan)),
        ("Which parts of the model a site trained", _of_the_weights(secure)),
        ("A site's loss, size of update and modalities", NOT_TOLD if hidden else "told"),
        *([("What a site tells beside the weights", told)] if told else []),
        ("A site's evaluation", _of_the_evaluation(plan)),
        ("Who takes part", "told in every mode, with the number of subjects, how many were left "
         "out and why, and how long each step took"),
        ("Who could undo this", _undone_by(secure)),
    ]  # fmt: skip


def what_leaves(plan: Mapping[str, Any]) -> str:
    """What of a model leaves a site, as a noun.

    >>> what_leaves({}), what_leaves({"secure_aggregation": {"mode": "masks"}})
    ('model updates', 'model updates behind masks')
    """
    secure = secure_of(plan)
    how = {"none": "", "masks": " behind masks", "ckks": ", encrypted"}[secure.mode]
    if secure.mode == "ckks" and secure.selective:
        how = ", encrypted in part" + (" and else behind masks" if secure.masked else "")
    return f"model updates{how}"


def how_aggregated(plan: Mapping[str, Any]) -> str:
    """How the updates became one, as a sentence for a model card."""
    secure = secure_of(plan)
    rule = str((plan.get("aggregation") or {}).get("rule") or "mean").replace("_", " ")
    if secure.mode == "none":
        return f"Updates were aggregated by the {rule}; the server saw each site's update whole."
    how = {
        "masks": "summed behind masks (secure aggregation, Bonawitz et al. 2017)",
        "ckks": "summed under homomorphic encryption (CKKS)",
    }[secure.mode]
    if secure.mode == "ckks" and secure.selective:
        rest = "behind masks" if secure.rest == "masked" else "in the open"
        how += f", which held {_encrypted(secure)}; the rest travelled {rest}"
    return f"Updates were {how}; the server saw {server_sees(plan)}."


def _of_one(secure: SecureAggregation) -> str:
    if secure.mode == "none":
        return "every value, and its weight"
    if secure.mode == "masks":
        return "nothing: it arrives behind masks, and looks the same whatever is in it"
    if not secure.selective:
        return "nothing: it arrives encrypted, and only the sites have the key"
    if secure.rest == "masked":
        return f"nothing: {_encrypted(secure)} arrive encrypted, the rest behind masks"
    return f"every value but {_encrypted(secure)}, which arrive encrypted"


def _of_the_sum(plan: Mapping[str, Any]) -> str:
    privacy = _privacy_of(plan)
    if privacy.noise_multiplier == 0:
        return "all of it"
    if privacy.noise_by == "sites":
        return (
            "the sum with noise, of which every site adds a share behind its mask: nobody sees it "
            "without"
        )
    return (
        "all of it. The noise is added by the server, after the sum: it protects from those who "
        "get the model, not from the server"
    )


def _of_the_weights(secure: SecureAggregation) -> str:
    if secure.mode == "none":
        return "told, with the weight of each"
    if in_the_open(secure):
        return (
            "not told, but seen where a part arrives in the open: one that a site did not train is "
            "all zeros"
        )
    return "not told: the weights are summed with the updates, and only their sum is seen"


def _beside_the_weights(plan: Mapping[str, Any]) -> str:
    """What the plan has the sites tell of their subjects in the update; empty for nothing."""
    training = Training.model_validate(plan.get("training") or {})
    found = []
    if training.alignment is not None:
        found.append("the mean and second moments of its subjects' features")
    if training.is_dro and training.fairness is not None:
        of = training.fairness.attribute
        found.append(f"the share and mean loss of each group ({of}), small groups left out")
    if (plan.get("aggregation") or {}).get("fairness_q"):
        found.append("its training loss, in its weight")
    how = ", as part of its update: hidden as that is" if hides_sites(plan) else ""
    return " and ".join(found) + how if found else ""


def _of_the_evaluation(plan: Mapping[str, Any]) -> str:
    if hides_figures(plan):
        return "nothing: its counts are summed behind masks"
    metrics = (plan.get("task") or {}).get("metrics") or {}
    told = ["counts by class", "by group"]
    if metrics.get("reconstruction"):
        told.append("by modality how far reconstructed images are off")
    if metrics.get("memorisation"):
        told.append("by distance to the nearest subject whom the model draws")
    return f"{_listed(told)}; groups smaller than the site's policy allows are left out"


def _undone_by(secure: SecureAggregation) -> str:
    if secure.mode == "none":
        return "there is nothing to undo"
    if secure.mode == "ckks":
        told = "the server with any one site: every site holds the key"
        behind_masks = secure.selective and secure.rest == "masked"
        return told + ("; for what is behind masks, as with masks" if behind_masks else "")
    among = (
        "of the sites" if secure.neighbours is None
        else f"of its neighbours (about {secure.neighbours}) in a round"
    )  # fmt: skip
    enough = "more than two thirds" if secure.threshold is None else f"{secure.threshold}"
    if secure.neighbours is not None:
        enough = "more than half"
    return (
        f"the server with {enough} {among}; a server that shows the sites different survivors, "
        "with fewer (docs/threat-model.md says how many)"
    )


def _encrypted(secure: SecureAggregation) -> str:
    """Which values are encrypted, as a noun."""
    of = "" if secure.encrypt == ["*"] else f" of {_listed(secure.encrypt)}"
    if secure.encrypt_share == 1:
        return f"the values{of}"
    return f"the {100 * secure.encrypt_share:g} % of the values{of} that last changed most"


def _listed(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
