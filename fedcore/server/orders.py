"""Orders: who is asked what, and as which number.

Both are pure functions of the plan and the sites, so that a resumed run puts the same orders.
"""

from __future__ import annotations

from fedcore.aggregation.cohort import sample
from fedcore.records import EvalOrder, FinishOrder, Split, TrainOrder
from fedcore.server.run import Run, params_digest


def cohort(run: Run, round_num: int) -> tuple[str, ...]:
    """The sites of this round: a pure function of plan and round, so that a resumed run agrees."""
    return sample(run.population, run.plan.cohort.size, run.plan.seed, round_num)


def train_orders(run: Run, round_num: int) -> list[TrainOrder]:
    """Sign and put one order per site of the cohort."""
    digest, attempt = params_digest(run, round_num), run.attempts(round_num)
    selective = run.plan.secure_aggregation.encrypt_share < 1 and round_num > 0
    previous = params_digest(run, round_num - 1) if selective else None
    orders = [
        TrainOrder(
            run_id=run.run_id,
            site=site,
            seq=sequence(run, site, round_num) + attempt,
            round_num=round_num,
            plan_digest=run.plan.digest,
            params_digest=digest,
            attempt=attempt,
            previous_digest=previous,
            nonce=run.nonce,
        )
        for site in cohort(run, round_num)
    ]
    for order in orders:
        run.exchange.put_order(order, run.signing_key)
    return orders


def eval_orders(
    run: Run, round_num: int, split: Split, *, onnx_digest: str | None = None
) -> list[EvalOrder]:
    """Sign and put one evaluation order per site, over the params at the start of ``round_num``.

    Validation follows each round; the test split is asked for once, after the last one.
    """
    digest, attempt = params_digest(run, round_num), run.attempts(round_num, split)
    place = -1 if split == "validation" else attempt
    orders = [
        EvalOrder(
            run_id=run.run_id,
            site=site,
            seq=sequence(run, site, round_num) + place,
            round_num=round_num,
            plan_digest=run.plan.digest,
            params_digest=digest,
            split=split,
            onnx_digest=onnx_digest,
            attempt=attempt,
            nonce=run.nonce,
        )
        for site in run.population
    ]
    for order in orders:
        run.exchange.put_order(order, run.signing_key)
    return orders


def finish(run: Run) -> None:
    """Tell every site that the run is over."""
    tested = 1 + run.attempts(run.plan.rounds, "test")
    for site in run.population:
        seq = sequence(run, site, run.plan.rounds) + tested
        order = FinishOrder(run.run_id, site, seq, run.plan.digest, run.nonce)
        run.exchange.put_order(order, run.signing_key)


def sequence(run: Run, site: str, round_num: int) -> int:
    """How many orders this site got before ``round_num``.

    These are its trainings and every validation, repeated ones (secure ones that failed) too.
    """
    trained = sum(site in cohort(run, earlier) for earlier in range(round_num))
    validated = round_num
    for tried in run.failed:
        if tried.split == "train" and tried.round_num < round_num:
            trained += site in cohort(run, tried.round_num)
        if tried.split == "validation" and tried.round_num <= round_num:
            validated += 1
    return trained + validated
