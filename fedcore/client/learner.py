"""What an accepted order computes: train the plan's model, or evaluate it, on the site's data."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from fedcore import params as flat
from fedcore import seeds
from fedcore.aggregation import weights
from fedcore.compression import feedback
from fedcore.compression.chain import chain
from fedcore.compression.codec import Turn, shapes_of
from fedcore.config.functions import resolve
from fedcore.config.plan import Plan
from fedcore.data.site import Files, SiteData
from fedcore.errors import DataError, PermanentError
from fedcore.models.initial import build_model
from fedcore.params import Params
from fedcore.privacy import clipping
from fedcore.records import (
    ClientUpdate,
    DataSummary,
    EvalOrder,
    Evaluation,
    Split,
    TrainOrder,
)
from fedcore.registry import onnx
from fedcore.training import local, state


class Learner:
    """One plan on one site's data. Data and model are loaded once and serve every round."""

    def __init__(self, plan: Plan, files: Files, *, min_cell: int) -> None:
        site = SiteData(plan.task, files, plan.purpose)
        self._plan = plan
        self._min_cell = min_cell
        self._data: Mapping[Split, Any] = resolve(plan.task.dataset)(site)
        self._left_out = _left_out(self._data)
        self._inputs: dict[int, Mapping[str, tuple[int, ...]]] = {}
        self._module = build_model(plan)
        self._loss: Callable[..., Any] = resolve(plan.task.loss)

    def train(
        self,
        order: TrainOrder,
        digest: str,
        params: Params,
        *,
        noise_key: bytes | None = None,
        rest: Params | None = None,
    ) -> tuple[ClientUpdate, Params]:
        """Train from ``params``; the update is clipped and coded as the plan says.

        ``noise_key``: the secret of this round, which a plan with ``privacy.subject`` needs.
        ``rest``: what coding left of earlier updates, which goes with this one. Returns what is
        left now, too. Clipping comes after the rest is added, so that what is sent is bounded; what
        clipping takes away is not carried on. Raises DataError if the site has no training subject.
        """
        plan, started = self._plan, time.perf_counter()
        dataset = self._dataset("train")
        state.load_params(self._module, params)
        seed = seeds.derive(plan.seed, "train", order.site, order.round_num)
        result = self._trained(dataset, seed, noise_key)
        update = flat.only(flat.subtract(result.params, params), result.trained)
        update = feedback.with_rest(update, rest or {})
        norm = clipping.l2_norm(update)
        factor = clipping.factor(norm, plan.privacy.clip_norm)
        clipped = {name: array * factor for name, array in update.items()} if factor < 1 else update
        codec = chain(**plan.coding("up", order.round_num))
        if codec.stages and not math.isfinite(norm):
            raise PermanentError("the update has a NaN or an infinity, which no coding carries")
        turn = Turn(plan.seed, order.round_num, order.site)
        coded = codec.encode(clipped, turn)
        if rest is not None:
            sent = codec.expand(coded, shapes_of(clipped), turn)
            rest = feedback.rest_of(clipped, sent, rest)
        reply = ClientUpdate(
            site=order.site,
            run_id=order.run_id,
            seq=order.seq,
            order_digest=digest,
            update=coded,
            weights=self._weights(result.trained),
            num_examples=result.num_examples,
            data=self._summary_of_training(dataset),
            measurements={
                **result.measurements,
                "update_norm": norm,
                "seconds.train": time.perf_counter() - started,
            },
        )
        return reply, rest or {}

    def evaluate(
        self, order: EvalOrder, digest: str, params: Params, model: bytes | None
    ) -> Evaluation:
        """Additive statistics of ``params`` on the order's split, and the export's deviation.

        Raises DataError if the split has fewer subjects than the site reports on.
        """
        started = time.perf_counter()
        self.check(order.split)
        dataset = self._dataset(order.split)
        state.load_params(self._module, params)
        scores, targets = local.predict(self._module, dataset, self._plan.training)
        statistics = resolve(self._plan.task.metrics.collect)(
            scores,
            targets,
            getattr(dataset, "groups", {}),
            num_classes=len(self._plan.task.classes),
            min_cell=self._min_cell,
        )
        measurements = {"seconds.evaluate": time.perf_counter() - started}
        if model is not None:
            examples, _ = local.first_batch(dataset, self._plan.training)
            deviation = onnx.parity(
                self._module, model, examples, tuple(self._plan.task.modalities)
            )
            # JSON has no infinity, and a reply that cannot be read would hide the deviation.
            measurements["onnx_max_abs_diff"] = min(deviation, sys.float_info.max)
        return Evaluation(
            site=order.site,
            run_id=order.run_id,
            seq=order.seq,
            order_digest=digest,
            statistics=statistics,
            num_examples=len(dataset),
            data=self._summary(dataset),
            measurements=measurements,
        )

    def check(self, split: Split) -> None:
        """Raises DataError if the split has fewer subjects than the site reports on."""
        size = len(self._dataset(split))
        if size < self._min_cell:
            raise DataError(
                f"{size} subjects in the {split} split; fewer than {self._min_cell} are not "
                "reported on",
                reason=f"fewer than {self._min_cell} subjects in the {split} split",
            )

    def _dataset(self, split: Split) -> Any:
        try:
            dataset = self._data[split]
        except KeyError:
            raise DataError(f"the plan's dataset function gives no {split!r} split") from None
        if len(dataset) == 0:
            reason = f"no subject in the {split} split"
            raise DataError(f"there is {reason}; look at what was left out", reason=reason)
        return dataset

    def _summary(self, dataset: Any) -> DataSummary:
        """What the order used, and what the site left out of everything: a subject that is left
        out is in no split, and every reply can say so."""
        if id(dataset) not in self._inputs:  # it may look through the whole split
            self._inputs[id(dataset)] = local.input_shapes(dataset)
        known = getattr(dataset, "summary", None) or DataSummary(num_subjects=len(dataset))
        return replace(known, left_out=self._left_out, inputs=self._inputs[id(dataset)])

    def _trained(self, dataset: Any, seed: int, noise_key: bytes | None) -> local.TrainResult:
        given = (self._module, dataset, self._loss, self._plan.training)
        subject = self._plan.privacy.subject
        if subject is None:
            return local.train(*given, seed=seed)
        from fedcore.training import dpsgd  # Opacus takes a second, and only this needs it

        if noise_key is None:
            raise ValueError("privacy.subject needs a noise_key")
        return dpsgd.train(*given, subject, key=noise_key, seed=seed)

    def _summary_of_training(self, dataset: Any) -> DataSummary:
        """With ``privacy.subject``, not how many training subjects have which modality."""
        summary = self._summary(dataset)
        return summary if self._plan.privacy.subject is None else replace(summary, modalities={})

    def _weights(self, trained: Mapping[str, int]) -> dict[str, float]:
        rule = self._plan.aggregation
        if rule.weights == "uniform":
            return dict.fromkeys(trained, 1.0)
        return {module: weights.examples(n, rule.weight_cap) for module, n in trained.items()}


def _left_out(data: Mapping[Split, Any]) -> dict[str, int]:
    """Reason → how many files or subjects, over the summaries of all splits."""
    total = Counter[str]()
    for dataset in data.values():
        total.update(getattr(getattr(dataset, "summary", None), "left_out", {}))
    return dict(sorted(total.items()))
