"""What came of a run, read from its records: for the terminal, for JSON and for the report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from fedcore import __version__
from fedcore import params as flat
from fedcore.config.federation import Federation
from fedcore.config.plan import Plan
from fedcore.errors import NotFound
from fedcore.evaluation.fairness import gaps
from fedcore.evaluation.gates import Verdict
from fedcore.evaluation.headline import headline as of_what
from fedcore.records import EvaluationRecord, RoundRecord
from fedcore.server.connect import server_store
from fedcore.server.evaluation import evaluation_of, slowest
from fedcore.server.release import participants, privacy
from fedcore.server.run import Run, RunFile, load_state, params_digest, record_of
from fedcore.store.envelope import load_key
from fedcore.store.exchange import Exchange

_EPOCHS = ("first", "last")


def result_of(run: Run, version: int | None = None) -> dict[str, Any]:
    """The finished run as plain data, with the fields of a RunReport.

    Raises NotFound if the run has no verdict yet.
    """
    final = evaluation_of(run, run.plan.rounds, "test")
    verdict = run.exchange.record(run.run_id, "verdict", Verdict)
    if final is None or verdict is None:
        raise NotFound(f"run {run.run_id!r} has no verdict yet; resume it")
    rounds = [r for n in range(run.plan.rounds) if (r := record_of(run, n)) is not None]
    checks = [evaluation_of(run, n + 1, "validation") for n in range(run.plan.rounds)]
    evaluations = [*(e for e in checks if e is not None), final]
    opened = run.exchange.record(run.run_id, "run", RunFile)
    data = participants(run)
    # Every reply tells of the site's whole data set, so the last one is enough, and all of it.
    left_out = {site: trained_on["left_out"] for site, trained_on in data.items()}
    left_out |= {site: said.left_out for e in evaluations for site, said in e.data.items()}
    return {
        "run_id": run.run_id,
        "plan": run.plan.model_dump(mode="json"),
        "plan_digest": run.plan.digest,
        "params_sha256": params_digest(run, run.plan.rounds),
        "started": opened.created if opened is not None else None,
        "version": __version__,
        "history": [_round(r, e) for r, e in zip(rounds, checks, strict=True)],
        "pretraining": _pretraining(run.plan, rounds),
        "final": final.summary,
        "sites": {
            site: _site(site, data.get(site, {}), left_out.get(site, {}), rounds, final)
            for site in run.population
        },
        "fairness": gaps(final.summary),
        "verdict": asdict(verdict),
        "onnx": {"path": None, "max_abs_diff": max(final.onnx_max_abs_diff.values(), default=None)},
        "registry": {"name": run.plan.name, "version": version, "champion": verdict.passed},
        "privacy": privacy(run.plan),
        "params_bytes": flat.nbytes(load_state(run, 0).params),
        "bytes_up": sum(r.bytes_up for r in rounds) + sum(e.bytes_up for e in evaluations),
        "bytes_down": sum(r.bytes_down for r in rounds) + sum(e.bytes_down for e in evaluations),
        "bytes": {
            "training": _bytes(rounds),
            "validation": _bytes([e for e in checks if e is not None]),
            "test and export": _bytes([final]),
        },
        "bytes_as_float32": _bytes_as_float32(run, rounds),
        "seconds": _seconds(rounds, evaluations),
    }


def finished_run(federation: Federation, plan: Plan, run_id: str) -> dict[str, Any] | None:
    """What came of the run, by the exchange alone; None if it is not over."""
    exchange = Exchange(server_store(federation))
    version = exchange.record(run_id, "release", int)
    if version is None:
        return None
    population, key = tuple(sorted(federation.sites)), load_key(federation.signing_key)
    return result_of(Run(run_id, plan, population, exchange, key), version)


def headline(result: Mapping[str, Any]) -> dict[str, Any]:
    """The one JSON object that ``fedcore run --json`` ends with."""
    overall = result["final"]["overall"]
    first = of_what(overall)
    names = ("macro_auc", "dice", "pooled_dice", "accuracy", "sensitivity", "specificity", "f1")
    figures = {name: overall[name]["value"] for name in names if name in overall}
    kept = ("onnx", "registry", "privacy", "bytes_up", "bytes_down", "bytes",
            "bytes_as_float32", "seconds", "params_sha256")  # fmt: skip
    return {
        "run_id": result["run_id"],
        "rounds": len(result["history"]),
        **figures,
        "sites": {
            name: {
                "num_examples": site["num_examples"],
                "modalities": site["modalities"],
                first.of_class: ((site["summary"] or {}).get(first.key) or {}).get("value"),
                "left_out": site["left_out"],
                "epsilon_spent": site["epsilon_spent"],
            }
            for name, site in result["sites"].items()
        },
        "verdict": {name: result["verdict"][name] for name in ("passed", "reasons")},
        **{name: result[name] for name in kept},
    }


def _pretraining(plan: Plan, rounds: Sequence[RoundRecord]) -> dict[str, dict[str, float]]:
    """Modality → what its encoder reached by reconstruction, of all images that sites told of."""
    how = plan.training.pretraining
    found = {name: _reached(name, rounds) for name in (how.modalities if how else ())}
    return {name: of for name, of in found.items() if of}


def _reached(modality: str, rounds: Sequence[RoundRecord]) -> dict[str, float]:
    """How many images at how many sites, and their mean squared error in the first and the last
    epoch; of each site the last time. Empty if none told."""
    told: dict[str, list[float]] = {}
    for site, said in (item for record in rounds for item in record.measurements.items()):
        of = [said.get(f"pretraining.{modality}.{what}", 0.0) for what in ("images", *_EPOCHS)]
        if of[0] > 0:
            told[site] = of
    images = sum(number for number, *_ in told.values())
    errors = [sum(of[0] * of[i + 1] for of in told.values()) for i, _ in enumerate(_EPOCHS)]
    means = {epoch: of / images for epoch, of in zip(_EPOCHS, errors, strict=True) if told}
    return {"sites": float(len(told)), "images": images, **means} if told else {}


def _bytes(parts: Sequence[RoundRecord | EvaluationRecord]) -> dict[str, int]:
    return {way: sum(getattr(part, f"bytes_{way}") for part in parts) for way in ("up", "down")}


def _bytes_as_float32(run: Run, rounds: Sequence[RoundRecord]) -> int:
    """What the params of every round would have been uncoded, and the updates of the modules that
    each site trained; where nobody knows which, of all of them."""
    params = load_state(run, 0).params
    whole, total = flat.nbytes(params), 0
    for record in rounds:
        total += whole * len(run.population)
        total += sum(flat.nbytes(flat.only(params, w)) or whole for w in record.weights.values())
    return total


def _round(record: RoundRecord, evaluation: EvaluationRecord | None) -> dict[str, Any]:
    overall = evaluation.summary["overall"] if evaluation is not None else {}
    said, parts = record.measurements, [part for part in (record, evaluation) if part is not None]
    told = ("dice", "sensitivity") if "dice" in overall else ("macro_auc", "accuracy")
    return {
        "round_num": record.round_num,
        "cohort": list(record.cohort),
        "dropped": dict(record.dropped),
        **{name: overall.get(name) for name in told},
        "loss": {site: values.get("loss") for site, values in said.items()},
        "update_norm": {site: values.get("update_norm") for site, values in said.items()},
        "update_bytes": record.bytes_up,
        "bytes_up": sum(part.bytes_up for part in parts),
        "bytes_down": sum(part.bytes_down for part in parts),
        "seconds": _seconds([record], [evaluation] if evaluation is not None else []),
    }


def _site(
    site: str,
    data: Mapping[str, Any],
    left_out: Mapping[str, int],
    rounds: list[RoundRecord],
    final: EvaluationRecord,
) -> dict[str, Any]:
    reasons = [r.dropped[site] for r in rounds if site in r.dropped]
    if site in final.missing:
        reasons.append(final.missing[site])
    return {
        "summary": final.sites.get(site, {}).get("overall"),
        "num_examples": {
            "train": data.get("num_subjects", 0),
            # Where statistics are summed behind masks, nobody knows it.
            "test": final.num_examples.get(site, None if site in final.sites else 0),
        },
        "modalities": data.get("modalities", {}),
        "left_out": dict(left_out),
        "epsilon_spent": _charged(site, rounds),
        "refusals": sorted(set(reasons)),
    }


def _charged(site: str, rounds: list[RoundRecord]) -> float | None:
    """What the site's budget ledger charged to the run, as its last update tells."""
    said = [record.measurements.get(site, {}) for record in rounds]
    told = [of["epsilon_spent"] for of in said if "epsilon_spent" in of]
    return told[-1] if told else None


def _seconds(rounds: list[RoundRecord], evaluations: list[EvaluationRecord]) -> dict[str, float]:
    """Seconds by phase: the server's own, and of each client phase the slowest site's a round."""
    parts = [r.seconds for r in rounds] + [slowest(r.measurements) for r in rounds]
    total: defaultdict[str, float] = defaultdict(float)
    for spent in [*parts, *(e.seconds for e in evaluations)]:
        for phase, seconds in spent.items():
            total[phase] += seconds
    return {phase: round(seconds, 3) for phase, seconds in sorted(total.items())}
