"""What a report is made of: plain data, as it comes out of records, JSON and NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]


@dataclass(frozen=True)
class RunReport:
    """One run. Whatever is absent or None shows as "not measured"; nothing here has to be complete.

    Shapes, where ``I`` = ``{value, low, high}`` (a 95 % interval) and ``M`` = ``{num_examples,
    macro_auc: I, accuracy: I, sensitivity: I, specificity: I, f1: I, calibration_error,
    per_class: {class: {num_examples, auc: I, sensitivity: I, specificity: I, f1: I}},
    confusion: [[int]] (row = true class, column = predicted), roc: {class: {fpr: [], tpr: []}},
    reliability: [{confidence, observed, num_examples}], undefined: [class]}``:

    Of a model that reconstructs, ``M`` of all subjects has ``reconstruction: {modality:
    {num_examples, **I}}``, of one that draws ``memorisation: {trained_on, held_out, **I}``. Of a
    segmentation ``M`` is as ``evaluation.overlap.figures`` has it, and ``history`` holds
    ``dice`` and ``sensitivity`` in place of ``macro_auc`` and ``accuracy``.

    - ``plan``: ``Plan.model_dump()``; ``started``, ``ended``: ISO 8601
    - ``history``: per round ``{round_num, cohort: [site], dropped: {site: reason}, macro_auc: I,
      accuracy: I, loss: {site: value}, bytes_up, bytes_down, seconds: {phase: s},
      update_norm: {site: value}, update_bytes}``: the bytes of a round and of the validation after
      it, and of the former those of the updates and the conversation about them
    - ``pretraining``: ``{modality: {sites, images, first, last}}``: the mean squared error that its
      encoder reached by reconstruction, in the first and the last epoch
    - ``params_bytes``: of the params as float32
    - ``bytes``: ``{phase: {up, down}}`` over all sites; ``bytes_as_float32``: what the params and
      updates of all rounds would have been uncoded
    - ``final``: ``{overall: M, groups: {attribute: {value: M}}, suppressed: {attribute:
      subjects}}``
    - ``sites``: ``{site: {summary: M | None, num_examples: {split: count} | count,
      modalities: {name: count}, left_out: {reason: count}, refusals: [reason],
      epsilon_spent: value | None}}``: the last is what the site's own ledger charged to the run
    - ``fairness``: ``{attribute: {gap, best, worst, metric, undefined: [value],
      equal_opportunity: {gap}}}``
    - ``verdict``: ``{passed, reasons, checks: [{name, threshold, value, passed, reason}]}``
    - ``onnx``: ``{path, max_abs_diff}``; ``registry``: ``{name, version, champion: bool}``
    - ``privacy``: ``{unit, epsilon (None = no guarantee), delta, statement}``
    - ``baselines``: ``{single_site_macro_auc: {site: value}, centralised_macro_auc: value}``
    - ``isolation``: rows ``{site, target, action, allowed, expected}``
    - ``pictures``: ``{title, images: {modality: array}, mask: array | None, note}``. Arrays are
      (X, Y, Z) or one axial slice (X, Y), cubic voxels, RAS+ (first axis to the patient's right,
      second forward, third up), in the file's units: HU, SUV, or anything for MR
    - ``modes``: rows ``{mode, macro_auc, epsilon, bytes_up, bytes_down, seconds, params_sha256,
      server_sees}`` of the same study in several modes (``make modes``), or ``{mode, error}``
    - ``data_note``: what a reader must know of the data first, e.g. that it is synthetic
    """

    run_id: str
    plan: Record
    plan_digest: str | None = None
    params_sha256: str | None = None
    started: str | None = None
    ended: str | None = None
    version: str | None = None
    history: Sequence[Record] = ()
    pretraining: Mapping[str, Record] = field(default_factory=dict)
    final: Record = field(default_factory=dict)
    sites: Mapping[str, Record] = field(default_factory=dict)
    fairness: Mapping[str, Record] = field(default_factory=dict)
    verdict: Record | None = None
    onnx: Record | None = None
    registry: Record | None = None
    privacy: Record | None = None
    params_bytes: int | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    bytes: Mapping[str, Record] = field(default_factory=dict)
    bytes_as_float32: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    baselines: Record | None = None
    isolation: Sequence[Record] | None = None
    pictures: Sequence[Record] = ()
    modes: Sequence[Record] = ()
    data_note: str | None = None
