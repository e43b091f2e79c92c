"""Every rendered object against the JSON schemas of Kubernetes, strictly."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate
import pytest
from charts import EXAMPLES, render, values
from kubernetes_validate import utils

OLDEST, NEWEST = "1.31", "1.37"
NOT_OF_KUBERNETES = {"ServiceMonitor"}  # the Prometheus operator's


@pytest.fixture(scope="module", autouse=True)
def _read_definitions_once() -> Iterator[None]:
    """They are megabytes, and the validator reads them anew for each object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


def test_the_schemas_cover_the_versions_that_are_supported() -> None:
    versions = {utils.major_minor(version) for version in utils.all_versions()}
    assert {OLDEST, NEWEST} <= versions


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(("chart", "example"), EXAMPLES)
def test_every_object_is_as_kubernetes_wants_it(
    charts: dict[str, Path], chart: str, example: str, version: str
) -> None:
    for manifest in render(charts[chart], values(charts[chart], example)):
        if manifest["kind"] not in NOT_OF_KUBERNETES:
            assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_a_misspelt_field_would_be_seen(charts: dict[str, Path]) -> None:
    manifests = render(charts["fedcore-site"], values(charts["fedcore-site"], "direct"))
    pod = next(m for m in manifests if m["kind"] == "Pod")
    pod["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError, match="enableServiceLink"):
        kubernetes_validate.validate(pod, NEWEST, strict=True)
