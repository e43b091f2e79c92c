"""The model in service, and whether it is still the champion."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fedcore.errors import FedcoreError, ServiceUnavailable
from fedcore.serving.predictor import Predictor
from fedcore.telemetry import ServingMetrics

log = logging.getLogger("fedcore.serving")


class Manifest(Protocol):
    """What serving asks of a version's manifest, which is a dataclass."""

    @property
    def version(self) -> int: ...
    @property
    def onnx_digest(self) -> str: ...
    @property
    def plan(self) -> Mapping[str, Any]: ...


Load = Callable[[], tuple[bytes, Any]]
"""The champion's ONNX file and its Manifest, verified."""


class Served:
    """A predictor that follows the champion. Safe to use from several threads.

    Whoever asks for the model starts a look at the registry when one is due, and does not wait
    for it: a store that hangs holds up nobody who can be served.
    """

    def __init__(
        self, load: Load, champion: Callable[[], int | None], metrics: ServingMetrics,
        *, check_seconds: float, first_seconds: float,
    ) -> None:  # fmt: skip
        self._load, self._champion, self._metrics = load, champion, metrics
        self._check_seconds, self._first_seconds = check_seconds, first_seconds
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._next_look = 0.0
        self._model: tuple[Predictor, Manifest] | None = None
        self._trouble = "it is still being loaded"

    def current(self) -> tuple[Predictor, Manifest]:
        """The model to use now. The first is waited for, but not for ever.

        Raises ServiceUnavailable if there is none after ``first_seconds``.
        """
        looking = self._look_if_due()
        if self._model is None and looking is not None:
            looking.join(self._first_seconds)
        if self._model is None:
            raise ServiceUnavailable(f"there is no model to serve: {self._trouble}")
        return self._model

    def _look_if_due(self) -> threading.Thread | None:
        """The look that is going on, perhaps begun by this very call."""
        with self._lock:
            if self._looking is not None and self._looking.is_alive():
                return self._looking
            if time.monotonic() < self._next_look:
                return None
            self._looking = threading.Thread(
                target=self._look, name="fedcore-champion", daemon=True
            )
            self._looking.start()
            return self._looking

    def _look(self) -> None:
        try:
            if self._model is None or self._champion() not in (None, self._model[1].version):
                self._model = self._open()
        except FedcoreError as error:
            self._trouble = str(error)
            if self._model is not None:
                self._metrics.reload_failures.inc()
                log.warning("version %d stays in service: %s", self._model[1].version, error)
        finally:
            if self._model is not None:
                self._next_look = time.monotonic() + self._check_seconds

    def _open(self) -> tuple[Predictor, Manifest]:
        model, manifest = self._load()
        opened = Predictor(model), manifest
        self._metrics.model_version.set(manifest.version)
        log.info("serving version %d", manifest.version)
        return opened
