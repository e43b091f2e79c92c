"""From a trained run to a release: export, judge, register, promote. Nothing passes by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from fedcore import __version__
from fedcore.config.plan import Plan
from fedcore.config.spending import run_events
from fedcore.errors import NotFound, ReleaseError
from fedcore.evaluation.gates import Check, Verdict
from fedcore.evaluation.gates import judge as judge_figures
from fedcore.models.initial import build_model
from fedcore.privacy.accounting import GaussianEvent, Unit, by_unit, statement
from fedcore.records import EvaluationRecord
from fedcore.registry import onnx
from fedcore.registry.api import Registry
from fedcore.server.run import Run, load_state, record_of
from fedcore.store import blobs
from fedcore.store.api import Store
from fedcore.training.state import get_params, load_params


def export(run: Run) -> str:
    """Export the final params to ONNX and publish it for the sites to check. Returns its digest.

    An export that an earlier attempt published is kept. Raises ReleaseError if torch cannot
    export the model, or if no site ever told the shape of its inputs.
    """
    try:
        return blobs.digest(run.exchange.onnx(run.run_id))
    except NotFound:
        pass
    module = build_model(run.plan)
    final = load_state(run, run.plan.rounds)
    # What stays at the sites is here as the plan begins with it, and ``judge`` says so.
    load_params(module, {**get_params(module), **final.shared})
    task, patches = run.plan.task, run.plan.training.patches
    model = onnx.export(
        module,
        _example(run),
        metadata={
            "classes": task.classes,
            "modalities": list(task.modalities),
            "run_id": run.run_id,
            "plan_digest": run.plan.digest,
            "dataset": task.dataset.model_dump(mode="json"),
            **({} if patches is None else {"overlap": patches.overlap}),
        },
    )
    known = final.public if run.plan.compression.compress else None
    run.exchange.publish_onnx(run.run_id, model, known)
    return blobs.digest(run.exchange.onnx(run.run_id))


def judge(run: Run, evaluation: EvaluationRecord) -> Verdict:
    """The plan's gates over the held-out figures, and the export's deviation at every site.

    The verdict is written once and is what a resumed run finds.
    """
    written = run.exchange.record(run.run_id, "verdict", Verdict)
    if written is not None:
        return written
    figures = judge_figures(
        run.plan.gates.asked(), evaluation.summary, evaluation.sites, run.population
    )
    checks = [_parity_check(evaluation), *_wholeness_check(run.plan)]
    reasons = (*figures.reasons, *(check.reason for check in checks if not check.passed))
    verdict = Verdict(not reasons, reasons, (*figures.checks, *checks))
    run.exchange.create_record(run.run_id, "verdict", verdict)
    return run.exchange.record(run.run_id, "verdict", Verdict) or verdict


def register(run: Run, evaluation: EvaluationRecord, verdict: Verdict, store: Store) -> int:
    """Put the model in the registry under a new version; make it champion if it passed.

    Doing this again for the same run changes nothing and returns the same version: not even the
    champion, which may be another run's by now.
    """
    released = run.exchange.record(run.run_id, "release", int)
    if released is not None:
        return released
    registry = Registry(store, run.plan.name)
    final = load_state(run, run.plan.rounds).shared
    version = registry.register(
        model=run.exchange.onnx(run.run_id),
        params=final,
        run_id=run.run_id,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        plan_digest=run.plan.digest,
        plan=run.plan.model_dump(mode="json"),
        onnx_max_abs_diff=max(evaluation.onnx_max_abs_diff.values(), default=None),
        verdict=asdict(verdict),
        metrics={"all": evaluation.summary, "sites": evaluation.sites},
        privacy=privacy(run.plan),
        participants=participants(run),
        fedcore_version=__version__,
    )
    if verdict.passed:
        registry.promote(version)
    run.exchange.create_record(run.run_id, "release", version)
    return version


def privacy(plan: Plan) -> dict[str, Any]:
    """Unit, epsilon (None = no guarantee), delta, and what they mean in plain words.

    Where a plan protects both, of one subject, which people ask for first; the statement says both.
    """
    delta, events = plan.privacy.target_delta, run_events(plan)
    found = by_unit(events, delta)
    unit: Unit = "subject" if "subject" in found else "site"
    told = [
        statement([e for e in events if e.unit == of], delta, in_shares=plan.noise_in_shares)
        for of in found
    ]
    return {
        "unit": unit,
        "epsilon": found.get(unit),
        "delta": delta,
        "statement": " ".join(told) or _no_guarantee(plan),
    }


def _no_guarantee(plan: Plan) -> str:
    if plan.privacy.noise_multiplier > 0 or plan.privacy.subject is not None:
        return (
            "No formal guarantee: the noise came from the plan's seed, and whoever knows the seed "
            "can subtract it. Use noise_source: os."
        )
    return statement([GaussianEvent(0.0, plan.rounds)], plan.privacy.target_delta)


def participants(run: Run) -> dict[str, Mapping[str, Any]]:
    """Site → what it said of its training data in the last round that it took part in."""
    said: dict[str, Mapping[str, Any]] = {}
    for round_num in range(run.plan.rounds):
        record = record_of(run, round_num)
        if record is not None:
            said.update({site: asdict(data) for site, data in record.data.items()})
    return said


def _example(run: Run) -> Any:
    """Random inputs of the shapes that the sites told, of patches if that is what the model takes,
    a batch of two."""
    shapes: dict[str, tuple[int, ...]] = {}
    for data in participants(run).values():
        shapes |= {name: tuple(shape) for name, shape in data["inputs"].items()}
    if not shapes:
        raise ReleaseError("no site told the shape of its inputs, so there is nothing to export")
    if (patches := run.plan.training.patches) is not None:
        shapes = {n: (*s[:-3], *patches.shape) if len(s) > 3 else s for n, s in shapes.items()}
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.ones(2, *shape)
        if name == "present"
        else torch.rand(2, *shape, generator=generator)
        for name, shape in shapes.items()
    }
    return tensors["input"] if set(tensors) == {"input"} else tensors


def _wholeness_check(plan: Plan) -> list[Check]:
    """Nothing is promoted that was not judged: the sites' figures are of their own params too."""
    patterns = plan.training.local
    if not patterns:
        return []
    reason = (
        f"params stay at the sites (training.local: {', '.join(patterns)}): the figures are of "
        "each site's own model, and the export, which lacks them, is none of those"
    )
    return [Check("whole_model", 0.0, float(len(patterns)), False, reason)]


def _parity_check(evaluation: EvaluationRecord) -> Check:
    unchecked = sorted(set(evaluation.sites) - set(evaluation.onnx_max_abs_diff))
    worst = max(evaluation.onnx_max_abs_diff.values(), default=None)
    if worst is None or unchecked:
        at = ", ".join(unchecked) or "any site"
        reason = f"the ONNX export was not compared with PyTorch at {at}"
    elif worst > onnx.TOLERANCE:
        reason = f"the ONNX export deviates from PyTorch by {worst:.2g}; {onnx.TOLERANCE:g} allowed"
    else:
        reason = ""
    return Check("onnx_max_abs_diff", onnx.TOLERANCE, worst, reason == "", reason)
