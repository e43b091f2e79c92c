"""One evaluation of the flow, after a round or at the end."""

from __future__ import annotations

from fedcore.launch.api import Launcher
from fedcore.records import EvaluationRecord, Split
from fedcore.server.orders import eval_orders
from fedcore.server.run import Run
from flows import tasks


def evaluate_sites(
    run: Run, round_num: int, split: Split, launcher: Launcher, *, onnx_digest: str | None = None
) -> EvaluationRecord:
    """Order, wait, add up; where only the sum may be seen, the sites agree on keys first."""
    orders = eval_orders(run, round_num, split, onnx_digest=onnx_digest)
    if not run.plan.secure_aggregation.statistics:
        absent = tasks.await_replies(run, orders, launcher)
        return tasks.evaluate(run, orders, absent)
    agreement = tasks.agree_on_keys_to_evaluate(run, orders, launcher)
    absent = tasks.await_replies(run, agreement.orders, launcher)
    return tasks.reveal_statistics(run, agreement, absent)
