"""The end of the flow: export, evaluate on held-out subjects, judge, register, finish."""

from __future__ import annotations

from typing import Any

from fedcore.launch.api import Launcher
from fedcore.registry.api import Registry
from fedcore.server.events import tell
from fedcore.server.orders import finish
from fedcore.server.result import result_of
from fedcore.server.run import Run
from fedcore.store.api import Store
from flows import tasks
from flows.evaluate import evaluate_sites
from flows.show import show_release


def release_model(run: Run, launcher: Launcher, store: Store) -> dict[str, Any]:
    """Judge the run's final params on what no site trained on, and release them if they pass."""
    onnx_digest = tasks.export(run)
    evaluation = evaluate_sites(run, run.plan.rounds, "test", launcher, onnx_digest=onnx_digest)
    verdict = tasks.judge(run, evaluation)
    version = tasks.register(run, evaluation, verdict, store)
    finish(run)
    show_release(Registry(store, run.plan.name).show(version))
    tell("verdict", passed=verdict.passed, reasons=verdict.reasons, version=version)
    return result_of(run, version)
