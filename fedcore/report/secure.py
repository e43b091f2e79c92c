"""What a run's secure mode cost: bytes, precision, seconds."""

from __future__ import annotations

import math

from fedcore.config.disclosure import secure_of
from fedcore.report.numbers import count, duration, finite, scientific
from fedcore.report.run import Record, RunReport

Cost = tuple[str, str]
"""What, and how much."""

PHASES = {
    "agree on keys": "Agreeing on keys, the clients' start included",
    "open the sum": "Opening the sum",
}
"""Phases of ``RunReport.seconds`` that only secure rounds have."""


def costs(run: RunReport) -> list[Cost]:
    """What there is to say of a secure run; nothing of another."""
    secure = secure_of(run.plan)
    if secure.mode == "none":
        return []
    found = [("Bytes of the updates ÷ the params as float32", _ratio(expansion(run)))]
    if secure.masked:
        found.append(("Precision behind masks", f"{secure.bits} bits of a site's value, and the "
                      "sum of these is exact"))  # fmt: skip
    if secure.mode == "ckks":
        found += _of_ckks(run)
    found += [(label, duration(run.seconds[phase])) for phase, label in PHASES.items()
              if phase in run.seconds]  # fmt: skip
    return found


def expansion(run: RunReport) -> float:
    """Bytes of all updates ÷ those of as many copies of the params as float32; NaN if unknown.

    Of the conversation about them, too.
    """
    unmasked = finite(run.params_bytes) * sum(map(_counted, run.history))
    sent = sum(finite(item.get("update_bytes")) for item in run.history)
    return sent / unmasked if unmasked else math.nan


def _counted(item: Record) -> int:
    """Sites whose updates are in the round's sum."""
    return len(set(item.get("cohort") or ()) - set(item.get("dropped") or ()))


def _of_ckks(run: RunReport) -> list[Cost]:
    sites = max((len(item.get("cohort") or ()) for item in run.history), default=0)
    clip_norm = finite((run.plan.get("privacy") or {}).get("clip_norm"))
    if not sites or math.isnan(clip_norm):
        return []
    try:
        from fedcore.privacy import ckks
    except ImportError:  # TenSEAL is there only where a plan encrypts
        return []
    parameters = ckks.fitting(clip_norm, sites, secure_of(run.plan).bits)
    bound = scientific(ckks.error_bound(parameters, sites))
    bytes_more = f"at most {_ratio(ckks.expansion(parameters))}"
    return [
        ("Largest error of a value of the sum", f"{bound}, where a site's value is at most "
         f"{clip_norm:g}; but for one value in 10¹⁵"),
        ("Bytes of a ciphertext ÷ its values as float32", bytes_more),
        ("Parameters", f"ring of degree {count(parameters.poly_modulus_degree)}, modulus of "
         f"{parameters.modulus_bits} bits: {parameters.security}-bit security"),
    ]  # fmt: skip


def _ratio(value: float) -> str:
    return "not measured" if math.isnan(value) else f"{value:.2f} ×"
