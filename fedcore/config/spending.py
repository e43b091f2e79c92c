"""What the orders of a plan spend of privacy, as events: what is charged before it is done."""

from __future__ import annotations

from dataclasses import replace

from fedcore.config.plan import Plan
from fedcore.privacy.accounting import GaussianEvent, Unit


def round_events(plan: Plan) -> tuple[GaussianEvent, ...]:
    """What one training order of the plan releases of a site and its subjects; () if no noise.

    The plan fixes rate and steps, so this is the same at every site, however many subjects it has.
    Noise that whoever reads the plan can subtract is none.
    """
    privacy, events = plan.privacy, []
    if privacy.noise_source == "seeded":
        return ()
    if privacy.subject is not None:
        one = privacy.subject
        events.append(GaussianEvent(one.noise_multiplier, one.steps, "subject", one.sampling_rate))
    if privacy.noise_multiplier > 0:
        events.append(GaussianEvent(privacy.noise_multiplier, unit="site"))
        if privacy.adaptive is not None:
            events.append(GaussianEvent(privacy.adaptive.noise_multiplier, unit="site"))
    return tuple(events)


def run_events(plan: Plan, rounds: int | None = None) -> tuple[GaussianEvent, ...]:
    """The same of several rounds; unset, of all: what a site releases that is asked in each."""
    times = plan.rounds if rounds is None else rounds
    events = round_events(plan) if times else ()
    return tuple(replace(event, count=event.count * times) for event in events)


def without_noise(plan: Plan, unit: Unit) -> str | None:
    """Why the plan would spend infinity of a budget of this unit; None if it would not."""
    if any(event.unit == unit for event in round_events(plan)):
        return None
    field = {"subject": "privacy.subject", "site": "privacy.noise_multiplier"}[unit]
    return (
        f"this site has a privacy budget for one {unit}, and the plan hides no {unit} by noise "
        f"({field}, with noise_source: os): it would spend infinity"
    )
