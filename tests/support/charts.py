"""The charts of `helm/`, read and rendered by Helm's own engine, with no cluster.

``python tests/support/charts.py`` writes the parts of the charts' schemas that are fedcore's own
files (job, policy, exchange, data, federation) anew from the models that read those files.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import helm_python as helm
from pydantic import BaseModel
from ruamel.yaml import YAML

from fedcore.config.federation import Federation, Location
from fedcore.config.job import JobSettings
from fedcore.config.policy import Policy

HELM = Path(__file__).parents[2] / "helm"
SITE = HELM / "fedcore-site"
SERVER = HELM / "fedcore-server"

EXAMPLES = [
    (chart.name, path.name.removesuffix("-values.yaml"))
    for chart in (SITE, SERVER)
    for path in sorted((chart / "ci").glob("*-values.yaml"))
]
"""Every chart's name with each of its examples."""

Manifest = dict[str, Any]


def yaml(text: str) -> list[Any]:
    """The documents of a YAML text that are not empty."""
    return [document for document in YAML(typ="safe").load_all(text) if document]


def values(chart: Path, name: str) -> dict[str, Any]:
    """One of the chart's example files, which double as its test cases."""
    document: dict[str, Any] = yaml((chart / "ci" / f"{name}-values.yaml").read_text("utf-8"))[0]
    return document


def render(
    chart: Path, given: dict[str, Any], *, name: str = "north", namespace: str = "fedcore-north"
) -> list[Manifest]:
    """Every object the chart makes of these values, its tests and hooks included.

    Raises helm_python.HelmError where the values do not fit the chart's schema, or a check fails.
    """
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(given)
        texts = loaded.render(given, name=name, namespace=namespace)
    return [
        manifest
        for path, text in sorted(texts.items())
        if not path.endswith("NOTES.txt")
        for manifest in yaml(text)
    ]


def notes(chart: Path, given: dict[str, Any], *, namespace: str = "fedcore-north") -> str:
    """What Helm prints after an install."""
    with helm.Chart.load(chart) as loaded:
        texts = loaded.render(given, name="north", namespace=namespace)
    return texts[f"{chart.name}/templates/NOTES.txt"]


def pod_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The spec of each pod that these objects make, by the object's name."""
    return {
        m["metadata"]["name"]: m["spec"] if m["kind"] == "Pod" else m["spec"]["template"]["spec"]
        for m in manifests
        if m["kind"] in ("Pod", "Deployment", "Job")
    }


def only(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one object of this kind (and name)."""
    found = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects of kind {kind} named {name}"
    return found[0]


def complete(chart: Path, folder: Path) -> Path:
    """A copy of the chart with a stand-in for Prefect's, as after ``helm dependency build``.

    The stand-in makes one ConfigMap, ``prefect-server``.
    """
    copy = folder / chart.name
    shutil.copytree(chart, copy)
    for dependency in yaml((chart / "Chart.yaml").read_text("utf-8"))[0].get("dependencies", []):
        name, version = dependency["name"], dependency["version"].replace("x", "1")
        (copy / "charts" / name / "templates").mkdir(parents=True)
        (copy / "charts" / name / "Chart.yaml").write_text(
            f"apiVersion: v2\nname: {name}\nversion: {version}\n", "utf-8"
        )
        (copy / "charts" / name / "templates" / "stand-in.yaml").write_text(
            f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n", "utf-8"
        )
    return copy


def site_definitions() -> dict[str, Any]:
    """The ``$defs`` of the site chart's schema."""
    return (
        _definitions(JobSettings)
        | _definitions(Policy, optional=("site",))
        | {"Location": _bucket()}
    )


def server_definitions() -> dict[str, Any]:
    """The ``$defs`` of the server chart's schema: a federation whose clients run elsewhere.

    The chart itself says where the signing key and the credentials are mounted.
    """
    definitions = _definitions(Federation, leave_out=("signing_key", "credentials_file"))
    site = definitions["Site"]["properties"]
    for local in ("data", "policy"):
        del site[local]
    for launch in (definitions["Federation"]["properties"]["launch"], site["launch"]):
        _without_process(launch)
    definitions["Federation"]["required"].append("launch")
    return definitions | {"Location": _bucket()}


def _definitions(
    model: type[BaseModel], *, optional: tuple[str, ...] = (), leave_out: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A model and all it refers to, strict, without pydantic's titles."""
    schema = _plain(model.model_json_schema())
    nested = schema.pop("$defs", {})
    for field in leave_out:
        del schema["properties"][field]
    schema["required"] = [f for f in schema["required"] if f not in optional + leave_out]
    return {**nested, model.__name__: schema}


def _plain(node: Any) -> Any:
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {k: _plain(v) for k, v in node.items() if not (k == "title" and isinstance(v, str))}
    if "patternProperties" in kept:
        kept["additionalProperties"] = False
    return kept


def _bucket() -> dict[str, Any]:
    """A Location in a cluster: never a folder; the chart mounts the authority's certificate."""
    schema = _plain(Location.model_json_schema())
    for field in ("folder", "ca_bundle"):
        del schema["properties"][field]
    schema["properties"]["bucket"] = {"type": "string", "minLength": 3, "maxLength": 63}
    return {**schema, "required": ["bucket"]}


def _without_process(launch: dict[str, Any]) -> None:
    """A pod is no place for the hospitals' clients."""
    for choice in [launch, *launch.get("anyOf", [])]:
        if "enum" in choice:
            choice["enum"] = [kind for kind in choice["enum"] if kind != "process"]
    launch.pop("default", None)


def main() -> None:
    """Write the generated parts into the charts' schemas."""
    for chart, definitions in ((SITE, site_definitions()), (SERVER, server_definitions())):
        path = chart / "values.schema.json"
        schema = json.loads(path.read_text("utf-8")) | {"$defs": definitions}
        path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
