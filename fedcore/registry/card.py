"""The model card: what a person must know of a version before using it.

The sections are those of Mitchell et al. 2019, https://arxiv.org/abs/1810.03993.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedcore.config.disclosure import NOT_TOLD, hides_figures, hides_sites, how_aggregated
from fedcore.evaluation.fairness import gaps
from fedcore.registry.manifest import Manifest

NOT_MEASURED = "not measured"
_FIGURES = {
    "macro_auc": "Macro AUC",
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "f1": "F1",
    "calibration_error": "Calibration error",
}
_OF_CLASS = {"auc": "AUC", "sensitivity": "Sensitivity", "specificity": "Specificity", "f1": "F1"}
_OUTLINES = {
    "dice": "Dice",
    "pooled_dice": "Dice of all voxels",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
}
"""The same of a segmentation, over all and by structure."""


def model_card(manifest: Manifest) -> str:
    """The card as Markdown. What the manifest lacks shows as "not measured", never as good."""
    sections = {
        "Model details": _details(manifest),
        "Intended use": _intended_use(manifest),
        "Training data": _data(manifest),
        "Metrics": _metrics(manifest),
        "Fairness": _fairness(manifest),
        "Gate": _gate(manifest),
        "Privacy": _privacy(manifest.privacy),
        "Limits": _limits(manifest),
        "How to verify": _verify(manifest),
    }
    body = "\n\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    return f"# {manifest.name}, version {manifest.version}\n\n{body}\n"


def _details(manifest: Manifest) -> str:
    model = _task(manifest).get("model") or {}
    rows = [
        ("Run", manifest.run_id),
        ("Created", manifest.created),
        ("Plan", f"`{manifest.plan_digest}`"),
        ("Architecture", f"`{model.get('function', NOT_MEASURED)}`"),
        ("Made with", f"fedcore {manifest.fedcore_version}, federated over "
                      f"{_plural(len(manifest.participants), 'site')}"),
        ("Aggregation", how_aggregated(manifest.plan)),
    ]  # fmt: skip
    return "\n".join(f"- {name}: {value}" for name, value in rows)


def _intended_use(manifest: Manifest) -> str:
    task, purpose = _task(manifest), manifest.plan.get("purpose")
    classes = list(task.get("classes", []))
    does = f"Outlines {_listed(classes[1:])} in" if _segments(manifest) else (
        f"Tells apart {_listed(classes)} from"
    )  # fmt: skip
    return (
        f"{does} {_inputs(task)}, for the purpose "
        f"that consent was given for: {purpose or 'not stated'}. For research only. **This is "
        "not a medical device**: no decision on a patient may rest on it."
    )


def _data(manifest: Manifest) -> str:
    hidden = hides_sites(manifest.plan)
    rows = [
        (site, of.get("num_subjects"), NOT_TOLD if hidden else _counts(of.get("modalities")),
         _counts(of.get("left_out")))
        for site, of in sorted(manifest.participants.items())
    ]  # fmt: skip
    text = _table(("Site", "Subjects trained on", "With modality", "Left out"), rows)
    return f"{text}\n\nImages stayed at the sites; the metrics are of subjects not trained on."


def _metrics(manifest: Manifest) -> str:
    metrics, hidden = manifest.metrics, hides_figures(manifest.plan)
    shown = _OUTLINES if _segments(manifest) else _FIGURES
    summary = metrics.get("all") or {}
    rows = [_row("All sites", summary.get("overall"), shown)]
    rows += [
        _row(f"Site: {site}", (of or {}).get("overall"), shown)
        for site, of in sorted((metrics.get("sites") or {}).items())
        if not hidden
    ]
    rows += [
        _row(f"{_words(attribute)}: {value}", figures, shown)
        for attribute, groups in sorted((summary.get("groups") or {}).items())
        for value, figures in sorted(groups.items())
    ]
    notes = [_table(("Subjects of", "Number", *shown.values()), rows)]
    notes.append("Brackets are 95 % intervals. Macro figures are means over the classes.")
    if hidden:
        notes.append(f"Figures by site and by group: {NOT_TOLD}.")
    per_class = (summary.get("overall") or {}).get("per_class") or {}
    if per_class:
        of_class = _OUTLINES if _segments(manifest) else _OF_CLASS
        by_class = [_row(name, of, of_class) for name, of in per_class.items()]
        notes.append(_table(("Class", "Number", *of_class.values()), by_class))
    if _segments(manifest):
        notes.append(
            "Dice and sensitivity are means over the subjects who have a structure; specificity is "
            "the share of the others in whom none was found."
        )
    suppressed = summary.get("suppressed") or {}
    if suppressed:
        notes.append(f"Groups too small to be reported: {_counts(suppressed)}.")
    return "\n\n".join(notes)


def _fairness(manifest: Manifest) -> str:
    found = gaps(manifest.metrics.get("all") or {})
    if not found:
        why = NOT_TOLD if hides_figures(manifest.plan) else NOT_MEASURED
        return f"Differences between groups: {why}."
    rows = [
        (_words(attribute), _number(gap["gap"]), gap["best"] or "", gap["worst"] or "",
         _number(gap["equal_opportunity"]["gap"]), ", ".join(gap["undefined"]))
        for attribute, gap in sorted(found.items())
    ]  # fmt: skip
    gap_in = "Dice gap" if _segments(manifest) else "AUC gap"
    head = ("Attribute", gap_in, "Best", "Worst", "Sensitivity gap", "Not comparable")
    return f"{_table(head, rows)}\n\nThe largest difference between two groups of an attribute."


def _gate(manifest: Manifest) -> str:
    passed = manifest.verdict.get("passed") is True
    lines = ["**Passed.**" if passed else "**Not passed: this version must not be promoted.**"]
    lines += [f"- {reason}" for reason in manifest.verdict.get("reasons") or ()]
    rows = [
        (_words(check.get("name")), _number(check.get("threshold")), _number(check.get("value")),
         "yes" if check.get("passed") is True else "no")
        for check in manifest.verdict.get("checks") or ()
    ]  # fmt: skip
    if rows:
        lines.append("\n" + _table(("Asked", "Threshold", "Found", "Passed"), rows))
    return "\n".join(lines)


def _privacy(privacy: Mapping[str, Any]) -> str:
    epsilon, statement = privacy.get("epsilon"), str(privacy.get("statement") or "")
    if epsilon is None:
        said = statement.startswith("No formal guarantee")
        return statement if said else f"No formal guarantee. {statement}".strip()
    head = f"ε = {epsilon:.3g} at δ = {privacy.get('delta')}, per {privacy.get('unit')}."
    return f"{head} {statement}".strip()


def _least_voxels(manifest: Manifest) -> dict[str, int]:
    """Structure → how many of a subject's voxels must be called so, where the plan asks that."""
    target = (manifest.plan.get("task") or {}).get("target") or {}
    asked = {name: of.get("least_voxels", 0) for name, of in target.get("structures", {}).items()}
    return {name: number for name, number in asked.items() if number}


def _limits(manifest: Manifest) -> str:
    subjects = sum(of.get("num_subjects") or 0 for of in manifest.participants.values())
    sites = len(manifest.participants)
    lines = [
        "Not a medical device; not approved for diagnosis or treatment anywhere.",
        f"Trained on {_plural(subjects, 'subject')} of {_plural(sites, 'site')}: elsewhere, with "
        "other scanners, protocols or populations, it may be worse than the figures above.",
        "It knows its structures and no others, and outlines whatever looks like them."
        if _segments(manifest)
        else "It knows its classes and no others, and answers with one of them whatever it is "
        "shown.",
        "Inputs must be prepared exactly as in training; the plan's dataset function says how.",
    ]
    if patches := (manifest.plan.get("training") or {}).get("patches"):
        size = " × ".join(map(str, patches["shape"]))
        lines.append(
            f"`model.onnx` takes patches of {size} voxels; `fedcore serve` moves them over larger "
            "images."
        )
    if least := _least_voxels(manifest):
        told = _listed([f"{number} of {name}" for name, number in least.items()])
        lines.append(
            f"Fewer voxels of the model's grid than {told} count as none: in the figures above and "
            "in what `fedcore serve` answers, not in `model.onnx`."
        )
    undefined = ((manifest.metrics.get("all") or {}).get("overall") or {}).get("undefined") or ()
    if undefined:
        lines.append(f"Nothing is known of how well it finds {_listed(undefined)}.")
    return "\n".join(f"- {line}" for line in lines)


def _verify(manifest: Manifest) -> str:
    difference = manifest.onnx_max_abs_diff
    agreement = NOT_MEASURED if difference is None else f"{difference:.2g}"
    return (
        f"- `model.onnx`: `sha256sum model.onnx` prints `{manifest.onnx_digest}`\n"
        "- `params.safetensors`: `fedcore.params.digest` of its arrays (SHA-256 of names, shapes "
        f"and values) is `{manifest.params_digest}`\n"
        f"- Largest difference of a probability between PyTorch and ONNX at the sites: {agreement}"
    )


def _task(manifest: Manifest) -> Mapping[str, Any]:
    return manifest.plan.get("task") or {}


def _inputs(task: Mapping[str, Any]) -> str:
    modalities = list(task.get("modalities") or {})
    if not modalities:
        return "the inputs of the plan's own dataset function"
    return f"{_listed(modalities)} images, of which a subject may lack some"


def _segments(manifest: Manifest) -> bool:
    return _task(manifest).get("target") is not None


def _row(name: str, figures: Mapping[str, Any] | None, shown: Iterable[str]) -> tuple[Any, ...]:
    of = figures or {}
    return (name, of.get("num_examples"), *(_interval(of.get(figure)) for figure in shown))


def _interval(value: Any) -> str:
    """One figure with its limits.

    >>> _interval({"value": 0.912, "low": 0.87, "high": 0.95}), _interval(None)
    ('0.91 [0.87, 0.95]', 'not measured')
    """
    if not isinstance(value, Mapping):
        return _number(value)
    low, high = _number(value.get("low")), _number(value.get("high"))
    limits = "" if NOT_MEASURED in (low, high) else f" [{low}, {high}]"
    return _number(value.get("value")) + limits


def _number(value: Any) -> str:
    """Two decimals, more for what is small.

    >>> _number(0.5), _number(3.2e-7), _number(float("nan"))
    ('0.50', '3.2e-07', 'not measured')
    """
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return NOT_MEASURED
    return f"{value:.2g}" if 0 < abs(value) < 0.01 else f"{value:.2f}"


def _counts(counts: Mapping[str, int] | None) -> str:
    return ", ".join(f"{name} {number}" for name, number in (counts or {}).items()) or "none"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(value) for value in line)} |" for line in lines)


def _cell(value: Any) -> str:
    """Text that cannot end its cell: names of groups come out of the sites' files."""
    text = NOT_MEASURED if value is None else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _words(name: Any) -> str:
    return str(name).replace("_", " ").capitalize()


def _listed(names: Iterable[str]) -> str:
    """
    >>> _listed(["t1ce", "ct", "pet"])
    't1ce, ct and pet'
    """
    *most, last = list(names) or ["nothing"]
    return f"{', '.join(most)} and {last}" if most else last


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
