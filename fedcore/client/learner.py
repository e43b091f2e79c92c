"""What an accepted order computes: train the plan's model, or evaluate it, on the site's data."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fedcore import params as flat
from fedcore import seeds
from fedcore.aggregation import nova, qfair, scaffold, weights
from fedcore.client import generated
from fedcore.client.personal import Personal
from fedcore.client.pretraining import pretrained
from fedcore.compression import feedback
from fedcore.compression.chain import chain
from fedcore.compression.codec import Turn, shapes_of
from fedcore.config.functions import resolve
from fedcore.config.plan import Plan
from fedcore.data.site import Files, SiteData
from fedcore.errors import ConfigError, DataError, OrderRefused, PermanentError
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
from fedcore.training import augment, local, state


@dataclass(frozen=True)
class Variates:
    """SCAFFOLD's control variates of a round: the site's ``own`` and the server's."""

    own: Params
    server: Params

    def correction(self) -> Params:
        """What is added to every gradient."""
        return flat.subtract(self.server, self.own)

    def following(self, update: Params, steps: Mapping[str, float], rate: float) -> Params:
        """The site's own after the round."""
        return scaffold.of_site(self.own, self.server, update, steps, rate)


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
        begin = state.get_params(self._module)
        self._local = {name: a for name, a in begin.items() if plan.training.stays(name)}
        self._loss: Callable[..., Any] = resolve(plan.task.loss)

    def train(
        self,
        order: TrainOrder,
        digest: str,
        params: Params,
        *,
        noise_key: bytes | None = None,
        rest: Params | None = None,
        personal: Personal | None = None,
        control: Params | None = None,
    ) -> tuple[ClientUpdate, Params]:
        """Train from ``params``; the update is clipped and coded as the plan says.

        ``noise_key``: the secret of this round, which a plan with ``privacy.subject`` needs.
        ``rest``: what coding left of earlier updates, which goes with this one. Returns what is
        left now, too. Clipping comes after the rest is added, so that what is sent is bounded; what
        clipping takes away is not carried on. ``personal``: where the params that stay here are
        kept, if the plan has such, and the site's control variate, if it has those; ``control`` is
        the server's then. Raises DataError if the site has no training subject.
        """
        started = time.perf_counter()
        dataset = self._dataset("train")
        self._check_start(order, params)
        variates = self._variates(params, control, personal)
        result, errors = self._learnt(order, params, dataset, noise_key, personal, variates)
        shared = {name: result.params[name] for name in params}
        moved = flat.only(flat.subtract(shared, params), result.trained)
        update, steps = self._by_the_step(moved, result.steps)
        update, gain = self._fair(update, result.measurements)
        update, norm = self._clipped(feedback.with_rest(update, rest or {}))
        if personal is not None:
            personal.keep(self._staying(result.params, params, variates, update, steps))
        coded, rest = self._coded(order, update, rest)
        reply = ClientUpdate(
            site=order.site,
            run_id=order.run_id,
            seq=order.seq,
            order_digest=digest,
            update=coded,
            weights=self._weights({m: result.trained[m] for m in flat.modules(update)}, gain),
            num_examples=result.num_examples,
            data=self._summary_of_training(dataset),
            measurements={
                **result.measurements,
                **errors,
                "update_norm": norm,
                "seconds.train": time.perf_counter() - started,
            },
            steps=steps,
        )
        return reply, rest or {}

    def held(self, params: Params) -> frozenset[str]:
        """The modules of ``params`` that training here reaches: not the encoder of a modality that
        no training subject has. With ``privacy.subject`` all, whoever has what."""
        every = frozenset(flat.modules(params))
        data = self._summary(self._dataset("train"))
        if self._plan.privacy.subject is not None or not data.modalities:
            return every
        return every - {
            f"encoder.{m}" for m in self._plan.task.modalities if not data.modalities.get(m)
        }

    def evaluate(
        self,
        order: EvalOrder,
        digest: str,
        params: Params,
        model: bytes | None,
        personal: Personal | None = None,
    ) -> Evaluation:
        """Additive statistics of ``params`` on the order's split, and the export's deviation.

        ``personal``: where the params that stay here are kept, if the plan has such. The
        statistics are of the model with them; the export lacks them, and so does what it is
        compared with. Raises DataError if the split has fewer subjects than the site reports on.
        """
        started = time.perf_counter()
        self.check(order.split)
        dataset = self._dataset(order.split)
        state.load_params(self._module, self._own(params, personal))
        scores, targets = local.predict(
            self._module, dataset, self._plan.training, least=self._plan.task.least_voxels
        )
        statistics = resolve(self._plan.task.metrics.collect)(
            scores,
            targets,
            getattr(dataset, "groups", {}),
            num_classes=len(self._plan.task.classes),
            min_cell=self._min_cell,
        )
        statistics |= generated.statistics(
            self._plan, self._module, self._data, order.split, min_cell=self._min_cell
        )
        measurements = {"seconds.evaluate": time.perf_counter() - started}
        if model is not None:
            state.load_params(self._module, {**self._local, **params})
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

    def _check_start(self, order: TrainOrder, params: Params) -> None:
        """Raises OrderRefused if the run does not begin with what the plan says it does."""
        start = self._plan.training.start
        if start is None or order.round_num > 0:
            return
        if flat.digest({n: a for n, a in params.items() if start.takes(n)}) != start.digest:
            raise OrderRefused("the run does not begin with the params of the plan's start.digest")

    def _own(self, params: Params, personal: Personal | None) -> Params:
        """The server's params, and those that stay here: as they were kept, or as all begin.

        Raises OrderRefused if the server names one that stays: its change would be an answer.
        """
        if not self._plan.training.local:
            return params
        if personal is None:
            raise ValueError("training.local needs personal, where its params are kept")
        asked = sorted(set(params) & set(self._local))
        if asked:
            raise OrderRefused(
                f"the server's params hold {asked[0]!r}, which stays at the site (training.local)"
            )
        return {**self._local, **scaffold.split(personal.before())[0], **params}

    def _variates(
        self, params: Params, control: Params | None, personal: Personal | None
    ) -> Variates | None:
        """SCAFFOLD's. Raises OrderRefused if the server's are not of its params."""
        if not self._plan.training.scaffold:
            return None
        if personal is None:
            raise ValueError("training.scaffold needs personal, where the variate is kept")
        found = {name: array.shape for name, array in (control or {}).items()}
        if control is None or found != {name: array.shape for name, array in params.items()}:
            raise OrderRefused("the server's control variate is not of the shapes of its params")
        own = scaffold.split(personal.before())[1]
        return Variates({**scaffold.start(params), **own}, control)

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

    def _learnt(
        self,
        order: TrainOrder,
        params: Params,
        dataset: Any,
        noise_key: bytes | None,
        personal: Personal | None,
        variates: Variates | None,
    ) -> tuple[local.TrainResult, Mapping[str, float]]:
        """What training comes to from the server's params, and the errors of pre-training."""
        begin = self._own(params, personal)
        state.load_params(self._module, begin)
        encoders, errors = pretrained(self._plan, order, self._module, dataset, self._min_cell)
        state.load_params(self._module, {**begin, **encoders})
        seed = seeds.derive(self._plan.seed, "train", order.site, order.round_num)
        return self._trained(dataset, seed, noise_key, variates), errors

    def _trained(
        self, dataset: Any, seed: int, noise_key: bytes | None, variates: Variates | None
    ) -> local.TrainResult:
        given = (self._module, dataset, self._loss, self._plan.training)
        subject = self._plan.privacy.subject
        vary = augment.asked(self._plan.training, self._plan.task)
        if subject is None:
            correction = None if variates is None else variates.correction()
            return local.train(
                *given, seed=seed, correction=correction, min_cell=self._min_cell,
                tell_loss=self._plan.aggregation.fairness_q > 0, vary=vary,
            )  # fmt: skip
        from fedcore.training import dpsgd  # Opacus takes a second, and only this needs it

        if noise_key is None:
            raise ValueError("privacy.subject needs a noise_key")
        return dpsgd.train(*given, subject, key=noise_key, seed=seed, vary=vary)

    def _by_the_step(
        self, update: Params, steps: Mapping[str, int]
    ) -> tuple[Params, dict[str, float]]:
        """The update as the plan normalises it, and by what the server is to multiply if it is.

        Raises ConfigError where the update holds what no step of the optimiser moved.
        """
        training, rule = self._plan.training, self._plan.aggregation
        if training.scaffold:
            return update, {m: float(max(1, steps.get(m, 0))) for m in flat.modules(update)}
        if rule.normalise == "none":
            return update, {}
        statistics = sorted(set(update) - {name for name, _ in self._module.named_parameters()})
        if statistics:
            raise ConfigError(
                f"aggregation: normalise: {statistics[0]!r} is a running statistic, which is not a "
                "sum of steps; keep it at the sites (training.local), or use GroupNorm"
            )
        lengths = {
            module: nova.length(
                max(1, steps.get(module, 0)), training.learning_rate, training.proximal_mu
            )
            for module in flat.modules(update)
        }
        wanted = rule.effective_steps
        factors = {module: (wanted or 1.0) / length for module, length in lengths.items()}
        return nova.scale(update, factors), lengths if wanted is None else {}

    def _clipped(self, update: Params) -> tuple[Params, float]:
        """The update, no longer than the plan allows, and how long it was.

        Raises PermanentError for one that is not finite, though every loss was.
        """
        norm = clipping.l2_norm(update)
        if not math.isfinite(norm):
            raise PermanentError(
                "the update has a NaN or an infinity: lower training.learning_rate, or look for "
                "values that are not finite in the data"
            )
        factor = clipping.factor(norm, self._plan.privacy.clip_norm)
        if factor < 1:
            update = {name: array * factor for name, array in update.items()}
        return update, norm

    def _staying(
        self,
        trained: Params,
        params: Params,
        variates: Variates | None,
        sent: Params,
        steps: Mapping[str, float],
    ) -> Params:
        """What the site keeps: the params that are not the server's, and its control variate.

        That follows from what is ``sent``, which is what the server reckons with.
        """
        kept: Params = {name: array for name, array in trained.items() if name not in params}
        if variates is None:
            return kept
        own = variates.following(sent, steps, self._plan.training.learning_rate)
        return scaffold.join(kept, own)

    def _coded(
        self, order: TrainOrder, update: Params, rest: Params | None
    ) -> tuple[Params, Params | None]:
        """The update as it travels, and what coding leaves of it if there is feedback."""
        codec = chain(**self._plan.coding("up", order.round_num))
        turn = Turn(self._plan.seed, order.round_num, order.site)
        coded = codec.encode(update, turn)
        if rest is not None:
            rest = feedback.rest_of(update, codec.expand(coded, shapes_of(update), turn), rest)
        return coded, rest

    def _summary_of_training(self, dataset: Any) -> DataSummary:
        """With ``privacy.subject``, not how many training subjects have which modality."""
        summary = self._summary(dataset)
        return summary if self._plan.privacy.subject is None else replace(summary, modalities={})

    def _fair(self, update: Params, measurements: Mapping[str, float]) -> tuple[Params, float]:
        """The update as q-FedAvg has it, and how much more it counts."""
        q, rate = self._plan.aggregation.fairness_q, self._plan.training.learning_rate
        if q == 0:
            return update, 1.0
        norm, loss = clipping.l2_norm(update), measurements["loss_before"]
        factor, gain = qfair.fair(loss=loss, norm=norm, q=q, learning_rate=rate)
        return {name: array * np.float32(factor) for name, array in update.items()}, gain

    def _weights(self, trained: Mapping[str, int], gain: float) -> dict[str, float]:
        rule = self._plan.aggregation
        if rule.weights == "uniform":
            return dict.fromkeys(trained, gain)
        return {m: gain * weights.examples(n, rule.weight_cap) for m, n in trained.items()}


def _left_out(data: Mapping[Split, Any]) -> dict[str, int]:
    """Reason → how many files or subjects, over the summaries of all splits."""
    total = Counter[str]()
    for dataset in data.values():
        total.update(getattr(getattr(dataset, "summary", None), "left_out", {}))
    return dict(sorted(total.items()))
