"""The site's policy: a file that the hospital owns, and that its client obeys."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from pydantic import Field

from fedcore.config import yaml
from fedcore.config.disclosure import in_the_open
from fedcore.config.plan import Plan
from fedcore.config.section import Name, Section
from fedcore.privacy.accounting import Unit


class Allow(Section):
    """What a plan may ask. Everything not listed is refused."""

    purposes: list[Name] = Field(description="purposes that the ethics approval covers")
    modalities: list[Name] = Field(description="modalities a plan may read; more are refused")
    code: list[str] = Field(
        default=["fedcore.*", "torch.nn.functional:*"],
        description="patterns of package.module:function that may run here",
    )
    plans: list[str] | None = Field(
        default=None,
        description="digests of approved plans (`fedcore plan check` prints them); unset = any",
    )
    consent_elsewhere: bool = Field(
        default=False,
        description="true: a plan may leave out the consent column, because this site's data "
        "holds consenting subjects alone",
    )
    require_noise: float | None = Field(
        default=None, gt=0, description="smallest noise_multiplier accepted; unset = none asked"
    )
    require_noise_by_sites: bool = Field(
        default=False, description="true: no plan in which the server sees a sum before its noise"
    )
    require_secure_aggregation: bool = Field(
        default=False, description="true: no plan by which the server sees this site's own update"
    )


class Budget(Section):
    """How much privacy all studies together may cost, of which the site keeps a ledger."""

    epsilon: float = Field(gt=0, description="refused is what would take the sum above this")
    delta: float = Field(
        default=1e-5, gt=0, lt=1, description="the chance that the bound does not hold; well "
        "below 1 in the number of subjects"
    )  # fmt: skip
    unit: Unit = Field(
        default="subject", description="whose contribution is to be hidden: one subject's, or all "
        "of the site's"
    )  # fmt: skip
    cohort: Name = Field(
        default="all", description="a name for the people in this bucket; a new name begins a new "
        "sum, and is right only for people of whom nobody was in the old one"
    )  # fmt: skip
    charge: Literal["run", "round"] = Field(
        default="run", description="run: at its first order, a run is charged whole, and refused "
        "whole; round: as it goes, so that it may be refused midway"
    )  # fmt: skip


class Policy(Section):
    """Who this site is, whose orders it takes, and what they may ask."""

    site: Name
    server_public_key: str = Field(description="Ed25519, base64; `fedcore keys show` prints it")
    allow: Allow
    budget: Budget | None = Field(
        default=None, description="unset: what is spent is noted, and nothing refused for it"
    )
    min_cell: int = Field(
        default=5, ge=1, description="groups with fewer subjects are not reported; evaluations "
        "on fewer subjects are refused"
    )  # fmt: skip
    peers: dict[Name, list[str]] = Field(
        default={}, description="public identities of the sites that this one takes part in secure "
        "rounds with, base64, as the hospitals told each other"
    )  # fmt: skip
    revoked: list[str] = Field(
        default=[], description="identities that count no more, whoever lists or endorses them"
    )
    rotations: list[str] = Field(
        default=[], description="what `fedcore keys rotate` printed at sites that changed their key"
    )
    approver: str | None = Field(
        default=None, description="who approved this policy; goes into the egress record"
    )


def load(path: Path) -> Policy:
    """Read a policy file. Raises ConfigError that names each fault with its line."""
    return yaml.load(path, Policy)


def objection(policy: Policy, plan: Plan) -> str | None:
    """Why this site will not take part in ``plan``, in one sentence; None if it will."""
    allow = policy.allow
    if allow.plans is not None and plan.digest not in allow.plans:
        return f"plan {plan.digest[:12]} is not among the plans this site approved"
    if plan.purpose not in allow.purposes:
        return f"purpose {plan.purpose!r} is not allowed here; allowed: {', '.join(allow.purposes)}"
    foreign = [name for name in plan.task.modalities if name not in allow.modalities]
    if foreign:
        return f"modality {foreign[0]!r} is not allowed here"
    for function in plan.task.functions():
        if not any(fnmatchcase(function, pattern) for pattern in allow.code):
            return f"code {function!r} is not allowed to run here"
    unasked = plan.task.dataset.arguments.get("consent_column", "consent") is None
    if unasked and not allow.consent_elsewhere:
        return (
            "the plan asks for no consent (consent_column: null), and this site does not allow it"
        )
    wanted = allow.require_noise
    if wanted is not None and plan.privacy.noise_multiplier < wanted:
        return (
            f"noise_multiplier {plan.privacy.noise_multiplier} is below the {wanted} that this "
            "site requires"
        )
    if allow.require_noise_by_sites and not plan.noise_in_shares:
        return "this site requires noise in shares (privacy.noise_by: sites)"
    if allow.require_secure_aggregation and plan.secure_aggregation.mode == "none":
        return "this site requires secure aggregation: masks or ckks"
    if allow.require_secure_aggregation and in_the_open(plan.secure_aggregation):
        return "this site requires secure aggregation of the whole update; rest: plain shows a part"
    return None
