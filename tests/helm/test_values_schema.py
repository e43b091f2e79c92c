"""Values that are misspelt, missing or wrong are caught, and the message names them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python as helm
import pytest
from charts import SERVER, SITE, render, server_definitions, site_definitions, values, yaml

CHARTS = [SITE, SERVER]
DIRECT = {chart: values(chart, "direct") for chart in CHARTS}
OPEN = {
    "global",  # Helm's own
    "prefect-server",  # has a schema of its own
    "tolerations", "affinity", "nodeAffinity", "podAffinity", "podAntiAffinity",  # Kubernetes's
}  # fmt: skip


def schema(chart: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((chart / "values.schema.json").read_text("utf-8"))
    return document


def changed(chart: Path, path: str, value: Any) -> dict[str, Any]:
    """The direct example with one value set; None leaves it out."""
    given = deepcopy(DIRECT[chart])
    *parents, last = path.split(".")
    node = given
    for part in parents:
        node = node.setdefault(part, {})
    if value is None:
        del node[last]
    else:
        node[last] = value
    return given


@pytest.mark.parametrize(
    ("chart", "path", "value", "said"),
    [
        # misspelt
        (SITE, "sites", "north", "additional properties 'sites' not allowed"),
        (SITE, "job.imge", "x", "/job': additional properties 'imge' not allowed"),
        (SITE, "job.gpu", {"number": 1}, "'number' not allowed"),
        (SITE, "policy.allow.purpose", [], "/policy/allow': additional properties 'purpose'"),
        (SITE, "exchange.buckt", "x", "/exchange': additional properties 'buckt'"),
        (SITE, "data.folder", "/data", "/data': additional properties 'folder'"),
        (SITE, "limits.cpus", "4", "/limits': additional properties 'cpus'"),
        (SITE, "networkPolicy.enable", True, "/networkPolicy': additional properties 'enable'"),
        (SITE, "server.serviceAccount.crate", True, "'crate' not allowed"),
        (SITE, "agent.resources.limits", {"cpu": "1", "memory": "1Gi", "disk": "1"}, "'disk'"),
        (SERVER, "federatoin", {}, "additional properties 'federatoin' not allowed"),
        (SERVER, "federation.signing_key", "k.pem", "'signing_key' not allowed"),
        (SERVER, "federation.sites.North", {}, "additional properties 'North'"),
        (SERVER, "federation.sites.north.kubernetes.job.gpus", 1, "additional properties 'gpus'"),
        (SERVER, "metrics.serviceMonitor.enable", True, "'enable' not allowed"),
        (SERVER, "resources.limit", {}, "/resources': additional properties 'limit'"),
        # missing
        (SITE, "site", None, "missing property 'site'"),
        (SITE, "policy", None, "missing property 'policy'"),
        (SITE, "policy.server_public_key", None, "missing property 'server_public_key'"),
        (SITE, "exchange.bucket", None, "/exchange': missing property 'bucket'"),
        (SITE, "job.image", None, "/job': missing property 'image'"),
        (SITE, "credentials.existingSecret", None, "/credentials/data/secretKey': minLength"),
        (SITE, "networkPolicy.data", None, "/networkPolicy/data': minItems"),
        (SITE, "agent.enabled", True, "/networkPolicy/kubernetesApi': minItems"),
        (SITE, "server.subjects", [{"kind": "ServiceAccount", "name": "s"}], "'namespace'"),
        (SERVER, "image", None, "missing property 'image'"),
        (SERVER, "plan", None, "missing property 'plan'"),
        (SERVER, "federation.sites", {}, "/federation/sites': minProperties"),
        (SERVER, "federation.launch", None, "/federation': missing property 'launch'"),
        (SERVER, "federation.sites.north.kubernetes.namespace", None, "property 'namespace'"),
        (SERVER, "prefect.url", None, "/prefect/url': minLength"),
        # wrong
        (SITE, "site", "North", "/site': 'North' does not match pattern"),
        (SITE, "job.image", "fedcore-client:latest", "/job/image': 'fedcore-client:latest'"),
        (SITE, "images.allowed", ["fedcore-client:latest"], "/images/allowed/0'"),
        (SITE, "job.cpu", 4, "/job/cpu': got number, want string"),
        (SITE, "job.backoff_limit", -1, "/job/backoff_limit': minimum"),
        (SITE, "limits.deadlineSeconds", "a day", "/limits/deadlineSeconds'"),
        (SITE, "limits.gpu", -1, "/limits/gpu': minimum"),
        (SITE, "networkPolicy.data", [{"cidr": "0.0.0.0/0", "port": 443}], "/data/0/cidr'"),
        (SITE, "networkPolicy.data", [{"port": 443}], "/networkPolicy/data/0'"),
        (SITE, "server.subjects", [{"kind": "Robot", "name": "s"}], "/server/subjects/0/kind'"),
        (SITE, "caBundle", "/etc/ssl/ca.pem", "/caBundle'"),
        (SITE, "admissionPolicy.failurePolicy", "Allow", "/admissionPolicy/failurePolicy'"),
        (SERVER, "image", "fedcore-server:latest", "/image': 'fedcore-server:latest'"),
        (SERVER, "plan", {"name": "p"}, "/plan': got object, want string"),
        (SERVER, "federation.launch", "process", "/federation/launch'"),
        (SERVER, "prefect.url", "prefect:4200", "/prefect/url'"),
        (SERVER, "podDisruptionBudget.maxUnavailable", 2, "/podDisruptionBudget/maxUnavailable'"),
    ],
)  # fmt: skip
def test_it_is_caught_by_name(chart: Path, path: str, value: Any, said: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(said)):
        render(chart, changed(chart, path, value))


@pytest.mark.parametrize(
    ("chart", "path", "value", "said"),
    [
        (SITE, "policy.site", "south", 'policy.site is "south" and site is "north"'),
        (SITE, "server.subjects", [], "nobody may start Jobs here"),
        (SITE, "images.allowed", ["x@sha256:" + "0" * 64], "images.allowed leaves out job.image"),
        (SITE, "policy", "site: south", 'policy.site is "south"'),
        (SERVER, "federation.sites.east", {}, "sites.east: launch: kubernetes needs kubernetes:"),
        (SERVER, "secrets.kubeconfigs", "", "sites.south.kubernetes.kubeconfig is a key of"),
        (SERVER, "metrics.serviceMonitor.enabled", True, "needs metrics.enabled"),
    ],
)
def test_what_does_not_fit_together_is_told(chart: Path, path: str, value: Any, said: str) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(said)):
        render(chart, changed(chart, path, value))


@pytest.mark.parametrize(
    ("chart", "definitions"), [(SITE, site_definitions()), (SERVER, server_definitions())]
)
def test_fedcores_own_files_have_fedcores_own_schema(
    chart: Path, definitions: dict[str, Any]
) -> None:
    # Out of date? `python tests/support/charts.py` writes them anew.
    assert schema(chart)["$defs"] == definitions


@pytest.mark.parametrize("chart", CHARTS)
def test_no_object_takes_fields_that_it_does_not_know(chart: Path) -> None:
    lax = [
        name
        for name, node in objects(schema(chart), "values")
        if "additionalProperties" not in node and name not in OPEN
    ]
    assert lax == []


@pytest.mark.parametrize("chart", CHARTS)
def test_the_readme_tells_every_value(chart: Path) -> None:
    readme = (chart / "README.md").read_text("utf-8")
    told = set(re.findall(r"^\| `([^`]+)` \|", readme, re.MULTILINE))
    known = set(leaves(yaml((chart / "values.yaml").read_text("utf-8"))[0]))
    required = set(schema(chart)["required"])
    assert known - told == set()
    assert {name for name in required if not any(t.split(".")[0] == name for t in told)} == set()
    tops = set(schema(chart)["properties"])
    assert {name for name in told if name.split(".")[0] not in tops} == set()


@pytest.mark.parametrize("chart", CHARTS)
def test_the_chart_is_as_old_as_fedcore(chart: Path) -> None:
    from fedcore import __version__

    assert yaml((chart / "Chart.yaml").read_text("utf-8"))[0]["appVersion"] == __version__


def objects(node: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of an object, with the name of its field."""
    if isinstance(node, list):
        for item in node:
            yield from objects(item, name)
    elif isinstance(node, dict):
        if node.get("type") == "object":
            yield name, node
        for key, value in node.items():
            inner = key not in ("properties", "items", "anyOf", "$defs", "definitions")
            yield from objects(value, key if inner else name)


def leaves(node: dict[str, Any], above: str = "") -> Iterator[str]:
    """The dotted names of all values; a list or an empty mapping is one value."""
    for key, value in node.items():
        whole = key in ("requests", "limits", "default", "defaultRequest") and above
        if isinstance(value, dict) and value and not whole:
            yield from leaves(value, f"{above}{key}.")
        else:
            yield above + key
