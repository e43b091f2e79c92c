"""Waiting for the sites' replies, and for their clients to stay alive."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fedcore.launch.api import Launcher, WorkOrder
from fedcore.records import Step
from fedcore.server.events import tell
from fedcore.server.run import Run

_OUTAGE = 1.0
"""Seconds after which an exchange that does not answer is taken to be away."""

_SWEEP = 1.0
"""Seconds between two looks for everybody's reply. In between it is enough to look for one that
is missing, since the round waits for all; each look costs a request."""


def await_replies(
    run: Run,
    orders: Sequence[WorkOrder],
    launcher: Launcher,
    step: Step | None = None,
) -> dict[str, str]:
    """Wait until every order (or the step of it) has its reply, or the deadline passed.

    Returns site → why it dropped.

    A client that died is started again; one that cannot come back is not waited for.
    """
    pending = {order.site: order for order in orders}
    dropped: dict[str, str] = {}
    waiting: dict[str, str] = {}
    for order in orders:
        launcher.ensure(order)
    sweep = time.monotonic()
    deadline = sweep + run.plan.timeouts.round
    while pending:
        everybody = time.monotonic() >= sweep
        sweep += _SWEEP if everybody else 0.0
        for site, order in list(pending.items()):
            # Asked before the exchange is: a client that ended has left its reply by then.
            status = launcher.poll(site)
            arrived = False
            if everybody or status.state == "failed" or site == next(iter(pending)):
                asked = time.monotonic()
                arrived = run.exchange.has_reply(site, run.run_id, order.seq, step)
                spent = time.monotonic() - asked
                deadline += spent if spent > _OUTAGE else 0.0  # no site could reply meanwhile
            if arrived:
                tell("reply", site=site, round_num=order.round_num, kind=step or order.kind)
                del pending[site]
            elif status.state == "failed" and status.permanent:
                dropped[site] = status.reason
                del pending[site]
            elif status.state == "failed":
                tell("restart", site=site, reason=status.reason)
                launcher.ensure(order)
            elif status.reason and status.reason != waiting.get(site):
                tell("waiting", site=site, reason=status.reason)
                waiting[site] = status.reason
        if pending and time.monotonic() > deadline:
            late = f"no reply within {run.plan.timeouts.round:g} s"
            return dropped | {site: _late(late, waiting.get(site)) for site in pending}
        if pending:
            time.sleep(run.plan.timeouts.poll)
    return dropped


def _late(late: str, reason: str | None) -> str:
    return f"{late}; its client: {reason}" if reason else late
