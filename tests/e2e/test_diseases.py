"""The lung and the retina as a user runs them: from scans to a report and a served prediction.

At the smallest size that is a run: coarse grids, about twenty subjects a site, two rounds.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from select import select
from typing import Any

import httpx
import numpy as np
import pytest
from demo_runs import TIMEOUT, log_of, nothing_runs, start
from PIL import Image
from served import serving

from fedcore.config import plan as plans
from fedcore.config.plan import Gates
from fedcore.data.phantoms import demo_federation, people
from fedcore.data.phantoms.disease import Disease
from fedcore.data.phantoms.diseases import DISEASES
from fedcore.data.phantoms.writer import subject_objects

pytestmark = pytest.mark.e2e

IMAGE = re.compile(r'<img src="data:image/png;base64,([^"]+)" alt="([^:]+): (\w+), ([^"]+)">')


SCALE = 0.25
FRACTIONS = [0.1, 0.1, 0.8]
"""Of so few, five at each site are left to report on, and one at least to train with."""


@dataclass(frozen=True)
class Finished:
    """A run that is over, on a stack that still stores its model."""

    disease: Disease
    workdir: Path
    result: dict[str, Any]

    def images_of_one(self) -> dict[str, bytes]:
        """Modality → file of a subject of the north, which has all scanners."""
        seed = plans.load(self.workdir / "plan.yaml").seed
        spec = demo_federation(seed, SCALE, disease=self.disease)[0]
        whole = next(p for p in people(spec, seed) if p.modalities == self.disease.modalities)
        objects = subject_objects(spec, whole, seed=seed)
        return {
            name: objects[f"{whole.label}/{self.disease.paths[name].format(whole.label)}"]
            for name in self.disease.modalities
        }


@pytest.fixture(scope="module", params=["lung", "retina"])
def finished(
    request: pytest.FixtureRequest, new_workdir: Callable[[str], Path]
) -> Iterator[Finished]:
    name = request.param
    workdir = new_workdir(name)
    changes = {
        "task": {"dataset": {"arguments": {"fractions": FRACTIONS}}},
        # One that any model passes, so that this one is served.
        "gates": {**dict.fromkeys(Gates.model_fields), "min_macro_auc": 0.0},
    }
    process = start(workdir, "--scale", str(SCALE), "--keep", disease=name, changes=changes)
    assert process.stdout is not None
    try:
        assert select([process.stdout], [], [], TIMEOUT)[0], log_of(workdir).read_text()
        line = process.stdout.readline()
        assert line, log_of(workdir).read_text()
        yield Finished(DISEASES[name], workdir, json.loads(line))
    finally:
        process.kill()
    assert nothing_runs(workdir), "the services end with the command"


def test_the_run_ends_with_a_model_of_all_that_there_is(finished: Finished) -> None:
    import onnxruntime

    result, names = finished.result, set(finished.disease.modalities)
    assert result["verdict"]["passed"], result["verdict"]["reasons"]
    assert result["onnx"]["max_abs_diff"] <= 1e-4
    assert set(result["sites"]) == {"north", "east", "south", "west"}
    assert set(result["sites"]["north"]["modalities"]) == names
    assert len(result["sites"]["east"]["modalities"]) == 1, "east has one of the two devices"
    assert sum(result["sites"]["west"]["left_out"].values()) >= 3, "west's files are damaged"
    session = onnxruntime.InferenceSession(result["onnx"]["path"])
    assert {i.name for i in session.get_inputs()} == names | {"present"}


def test_the_report_shows_each_class_in_each_modality(finished: Finished) -> None:
    page = Path(finished.result["report"]).read_text()
    found = {(title, name): (told, data) for data, title, name, told in IMAGE.findall(page)}
    wanted = {(c, m) for c in finished.disease.classes for m in finished.disease.modalities}
    assert set(found) == wanted
    looks = {"ct": "HU", "pet": "SUV", "oct": "B-scan", "fundus": "a photo"}
    for (title, name), (told, data) in found.items():
        assert looks[name] in told, (title, name)
        pixels = np.asarray(Image.open(BytesIO(b64decode(data))).convert("RGB")).astype(int)
        colourful = np.ptp(pixels, axis=-1).mean()
        assert (colourful > 10) == (name in ("pet", "fundus")), (title, name, colourful)
        assert pixels.std() > 10, (title, name)


def test_a_subject_is_predicted_from_whatever_it_has(finished: Finished) -> None:
    images = finished.images_of_one()
    name = plans.load(finished.workdir / "plan.yaml").name
    with serving(name, finished.workdir / "federation.yaml") as (url, _, _):

        def ask(*modalities: str) -> dict[str, float]:
            files = {m: (Path(finished.disease.paths[m]).name, images[m]) for m in modalities}
            answer = httpx.post(f"{url}/predict", files=files, timeout=60)
            assert answer.status_code == httpx.codes.OK, answer.text
            assert set(answer.json()["modalities_used"]) == set(modalities)
            (row,) = answer.json()["predictions"]
            return dict(row)

        one, other = finished.disease.modalities
        said = [ask(one, other), ask(one), ask(other)]
    for row in said:
        assert list(row) == list(finished.disease.classes)
        assert sum(row.values()) == pytest.approx(1, abs=1e-6)
    assert said[0] != said[1] != said[2] != said[0]
