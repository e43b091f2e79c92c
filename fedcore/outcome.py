"""What a finished run leaves on disk: its report, its model, and its result in one JSON object."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedcore.config import federation as federations
from fedcore.report import RunReport, render
from fedcore.server.connect import server_store
from fedcore.server.result import headline
from fedcore.store.exchange import Exchange
from fedcore.store.patient import PatientStore


def write_outcome(
    result: Mapping[str, Any], extras: Mapping[str, Any], federation: Path
) -> dict[str, Any]:
    """Write ``runs/<run_id>/report.html`` and ``model.onnx`` beside the federation file.

    ``result`` is what the flow returned, ``extras`` more fields of a RunReport. Returns the one
    JSON object that ``fedcore run --json`` ends with.
    """
    folder = federation.resolve().parent / "runs" / result["run_id"]
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "model.onnx"
    who = federations.load(federation)
    exchange = Exchange(PatientStore(server_store(who), trusted=True))
    model.write_bytes(exchange.onnx(result["run_id"]))
    told = {
        **result,
        "data_note": who.data_note,
        **extras,
        "onnx": {**result["onnx"], "path": str(model)},
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    report = folder / "report.html"
    report.write_text(render(RunReport(**told)), encoding="utf-8")
    return {**headline(told), **extras.get("baselines", {}), "report": str(report)}
