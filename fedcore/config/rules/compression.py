"""Stages that cannot follow each other, or lose for ever what they leave out."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedcore.config.coding import CodingStage
    from fedcore.config.plan import Plan


_ORDER = {"low_rank": 0, "subsample": 0, "top_k": 1, "float16": 2, "quantise": 2}
"""Stages in the order in which they make sense: fewer values first, then fewer bits of each."""


def check(plan: Plan) -> list[str]:
    """Each fault of the plan that is of this kind, as one sentence."""
    how, where = plan.compression, "compression: "
    faults = []
    chains = {"up": how.up, "down": how.down}
    if how.last is not None:
        chains |= {"last.up": how.last.up or [], "last.down": how.last.down or []}
    for way, chain in chains.items():
        for one, other in pairwise(stage.stage for stage in chain):
            if _ORDER[one] >= _ORDER[other]:
                faults.append(
                    f"{where}{way}: {other} cannot follow {one}; first low_rank or subsample, then "
                    "top_k, then float16 or quantise, one of each at most"
                )
    names = {way: [stage.stage for stage in stages(plan, way)] for way in ("up", "down")}
    leaving_out = [name for name in names["up"] if _ORDER[name] < 2]
    if leaving_out and not how.feedback:
        faults.append(
            f"{where}{leaving_out[0]} on the way up loses for ever what it leaves out; set "
            "feedback: true, so that it is sent later"
        )
    if how.feedback and not how.up:
        faults.append(f"{where}feedback has no effect without stages in up; remove it")
    if "low_rank" in names["down"]:
        faults.append(
            f"{where}low_rank cannot go down, because products of matrices differ from machine to "
            "machine, and all sites must come to the same params; use top_k or quantise"
        )
    if how.last is not None:
        if not how.down and how.last.down:
            faults.append(
                f"{where}last.down is of the changes in the params, and without stages in down the "
                "params travel whole; remove it"
            )
        if how.last.rounds > plan.rounds:
            faults.append(
                f"{where}last.rounds is {how.last.rounds}, and the plan has {plan.rounds}; lower it"
            )
    return faults


def stages(plan: Plan, way: str) -> list[CodingStage]:
    """Every stage of that way, in whichever round."""
    last = plan.compression.last
    return [*getattr(plan.compression, way), *((getattr(last, way) if last else None) or [])]
