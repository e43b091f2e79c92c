"""The champion behind HTTP: GET /health, /model, /metrics and POST /predict.

/predict takes one subject's NIfTI files and photos as a form, field by modality, or prepared arrays
of many.
A segmentation answers with a mask: of files a .nii.gz on the voxels of the scan that gave the grid,
of arrays an .npz with ``labels``.
No access control of its own: it belongs behind the hospital's own proxy.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from fedcore.config.task import Task
from fedcore.data.preprocess import Grid
from fedcore.errors import BlobError, DataError, FedcoreError
from fedcore.evaluation.overlap import spared
from fedcore.serving import body, outlines, scans
from fedcore.serving.champion import Load, Served
from fedcore.serving.predictor import Images
from fedcore.telemetry import serving_metrics

_MAX_FILES = 64


def create_app(
    load: Load,
    champion: Callable[[], int | None],
    *,
    registry: CollectorRegistry,
    max_bytes: int = 256 << 20,
    check_seconds: float = 5.0,
    first_seconds: float = 20.0,
) -> FastAPI:
    """The app that serves what ``load`` gives, and loads again when ``champion()`` is another.

    ``champion`` is asked at most every ``check_seconds``. A new champion that cannot be loaded is
    logged and counted, and the old one stays in service. A request waits ``first_seconds`` for a
    first model, and never for a newer one. A body of more than ``max_bytes``, as sent or unpacked,
    is refused.
    """
    metrics = serving_metrics(registry)
    served = Served(
        load, champion, metrics, check_seconds=check_seconds, first_seconds=first_seconds
    )
    app = FastAPI(title="fedcore", openapi_url=None)

    @app.get("/health")
    def health() -> dict[str, Any]:
        return {"status": "ok", "version": served.current()[1].version}

    @app.get("/model")
    def model() -> Any:
        return served.current()[1]

    @app.get("/metrics")
    def scrape() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        status, begun = 500, time.perf_counter()
        try:
            sent = _limited(request, max_bytes)
            data = await _files(request, sent) if _is_form(request) else await _whole(sent)
            answer = await run_in_threadpool(_predict, served, data, max_bytes)
            status = 200
            return answer
        except FedcoreError as error:
            status = _status(error)
            raise
        finally:
            metrics.requests.labels(str(status)).inc()
            metrics.seconds.observe(time.perf_counter() - begun)

    @app.exception_handler(FedcoreError)
    async def refuse(_: Request, error: FedcoreError) -> Response:
        return JSONResponse({"error": str(error)}, status_code=_status(error))

    return app


class _TooLargeError(BlobError):
    """A body above the limit."""


def _predict(served: Served, data: bytes | Mapping[str, bytes], max_bytes: int) -> Response:
    """``data``: arrays in one body, prepared as in training, or one subject's files as they are."""
    predictor, manifest = served.current()
    grid, scan = None, None
    if isinstance(data, bytes):
        images: Images = body.arrays(data, max_bytes=max_bytes)
    else:
        subject = scans.ready(data, manifest.plan["task"], max_bytes=max_bytes)
        images, grid = subject.inputs, subject.grid
        scan = data[subject.reference] if subject.reference is not None else None
    found = predictor.predict(images)
    used = [name for name in predictor.inputs if name in images]
    if found.ndim > 2:
        told = {"X-Fedcore-Version": str(manifest.version), "X-Fedcore-Modalities": ",".join(used)}
        least = Task.model_validate(manifest.plan["task"]).least_voxels
        return _outlined(spared(found, least), grid, scan, told)
    return JSONResponse({
        "model": {"version": manifest.version, "onnx_digest": manifest.onnx_digest},
        "modalities_used": used,
        "predictions": _named(found, predictor.classes),
    })  # fmt: skip


def _outlined(
    probabilities: NDArray[Any], grid: Grid | None, scan: bytes | None, told: Mapping[str, str]
) -> Response:
    """A segmentation: of a subject's scans a mask on the scan, of arrays the classes on theirs."""
    if grid is None or scan is None:
        content, kind = outlines.as_arrays(probabilities), "application/x-npz"
    else:
        content, kind = outlines.on_scan(probabilities[0], grid, scan), "application/gzip"
    return Response(content, media_type=kind, headers=dict(told))


def _named(probabilities: NDArray[Any], classes: Sequence[str]) -> list[dict[str, float]]:
    return [dict(zip(classes, row, strict=True)) for row in probabilities.tolist()]


async def _limited(request: Request, max_bytes: int) -> AsyncGenerator[bytes]:
    """The body as it comes, or _TooLargeError as soon as it is known to be."""
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise _TooLargeError(f"the body has more than {max_bytes} bytes; send fewer subjects")
        yield part


async def _whole(sent: AsyncGenerator[bytes]) -> bytes:
    return b"".join([part async for part in sent])


def _is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").startswith("multipart/form-data")


class _InMemory(MultiPartParser):
    """Scans are not written to a disk; their size is limited already."""

    spool_max_size = sys.maxsize


async def _files(request: Request, sent: AsyncGenerator[bytes]) -> dict[str, bytes]:
    """The files of a form by field, that is, by modality."""
    try:
        form = await _InMemory(request.headers, sent, max_files=_MAX_FILES, max_fields=0).parse()
    except (MultiPartException, KeyError) as error:  # KeyError: a form without its boundary
        raise BlobError(f"the form cannot be read: {error}") from error
    files = {name: file for name, file in form.multi_items() if isinstance(file, UploadFile)}
    if len(files) < len(form.multi_items()):
        raise BlobError("the form gives a modality twice; send one file for each")
    return {name: await file.read() for name, file in files.items()}


def _status(error: FedcoreError) -> int:
    """The HTTP status of an error: what the caller can mend is 4xx."""
    match error:
        case _TooLargeError():
            return 413
        case BlobError():
            return 400
        case DataError():
            return 422
        case _:
            return 503
