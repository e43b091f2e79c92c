"""The federation of the test: its namespaces, its keys, and what the charts are told."""

from __future__ import annotations

import base64
import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any

from cluster import Object, kubectl
from ruamel.yaml import YAML

from fedcore.local import credentials
from fedcore.local.credentials import EXCHANGE, SERVER, Credential, site_bucket
from fedcore.store import envelope

ROOT = Path(__file__).parents[2]
LAUNCH = {"north": "kubernetes", "east": "kubernetes", "west": "agent"}
"""The sites, and who makes their Jobs: the server, or the site's own agent."""

_MODALITIES = ["t1ce", "flair", "ct", "pet"]
_PURPOSE = "brain-tumour-research"


def images() -> dict[str, str]:
    """The image that takes the place of each that the manifests name; the test can be told others.

    FEDCORE_CLIENT_IMAGE, FEDCORE_SERVER_IMAGE, FEDCORE_DEMO_IMAGE.
    """
    told = {kind: f"FEDCORE_{kind.upper()}_IMAGE" for kind in ("client", "server", "demo")}
    return {
        (named := f"fedcore-{kind}:dev"): os.environ.get(variable, named)
        for kind, variable in told.items()
    }


def _new_keys() -> dict[str, Credential]:
    with tempfile.TemporaryDirectory() as folder:
        return credentials.keep(Path(folder, "credentials.json"), list(LAUNCH))


@dataclass(frozen=True)
class Federation:
    """``prefix``: of its namespaces. ``gpu``: of the sites' Jobs; none is named for CPUs."""

    prefix: str
    gpu: str | None = None
    keys: dict[str, Credential] = field(default_factory=_new_keys)

    @property
    def system(self) -> str:
        """The namespace of the server, of S3 and of Prefect."""
        return f"{self.prefix}-system"

    def namespace(self, site: str) -> str:
        """The namespace of the site."""
        return f"{self.prefix}-{site}"

    @property
    def namespaces(self) -> dict[str, str]:
        """site → namespace."""
        return {site: self.namespace(site) for site in LAUNCH}

    @cached_property
    def _signing_key(self) -> tuple[str, str]:
        """The server's key as PEM, and its public half as policies hold it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "signing-key.pem")
            public = envelope.public_text(envelope.create_key(path))
            return path.read_text(), public

    def secrets(self) -> list[Object]:
        """What the manifests and the server's chart find in the system's namespace."""
        server = self.keys[SERVER]
        profile = f"""\
[{SERVER}]
aws_access_key_id = {server.access_key}
aws_secret_access_key = {server.secret_key}
"""
        return [
            _secret("s3", {
                "identities.json": json.dumps(credentials.identities(self.keys)),
                "credentials.json": json.dumps(self.keys),
            }),
            _secret("fedcore-signing-key", {"signing-key.pem": self._signing_key[0]}),
            _secret("fedcore-credentials", {"credentials": profile}),
        ]  # fmt: skip

    def hospitals(self) -> Object:
        """The script of the Job that makes the data."""
        script = Path(__file__).with_name("hospitals.py").read_text(encoding="utf-8")
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hospitals"},
                "data": {"hospitals.py": script}}  # fmt: skip

    def server_values(self, rounds: int) -> Object:
        """For the server's chart."""
        sites = {
            site: {"launch": launch}
            | ({} if launch == "agent" else {"kubernetes": self._kubernetes(site)})
            for site, launch in LAUNCH.items()
        }
        return {
            "image": images()["fedcore-server:dev"],
            "requireDigest": False,
            "plan": plan(rounds),
            "federation": {
                "exchange": self._location(EXCHANGE),
                "profile": SERVER,
                "launch": "kubernetes",
                "sites": sites,
            },
            "prefect": {"url": f"http://prefect.{self.system}.svc:4200/api"},
            "resources": {
                "requests": {"cpu": "100m", "memory": "1Gi"},
                "limits": {"cpu": "2", "memory": "3Gi"},
            },
        }

    def site_values(self, site: str) -> Object:
        """For the site's chart."""
        key = self.keys[site]
        keys = {"accessKey": key.access_key, "secretKey": key.secret_key}
        s3 = {"namespace": self.system, "podLabels": {"app.kubernetes.io/name": "s3"}, "port": 8333}
        by_agent = LAUNCH[site] == "agent"
        caller = {"kind": "ServiceAccount", "name": "fedcore-server", "namespace": self.system}
        return {
            "site": site,
            "exchange": self._location(EXCHANGE),
            "data": self._location(site_bucket(site)),
            "policy": {
                "server_public_key": self._signing_key[1],
                "allow": {"purposes": [_PURPOSE], "modalities": _MODALITIES},
            },
            "credentials": {"exchange": keys, "data": keys},
            "job": self._job(),
            "server": {"subjects": [] if by_agent else [caller]},
            "agent": {"enabled": by_agent},
            "networkPolicy": {"data": [s3], "exchange": [s3], "kubernetesApi": list(_api_server())},
            "test": {
                "foreignBuckets": [site_bucket(other) for other in LAUNCH if other != site],
                "foreignHosts": [f"prefect.{self.system}.svc:4200"],
            },
        }  # fmt: skip

    def _kubernetes(self, site: str) -> Object:
        return {"namespace": self.namespace(site), "job": self._job()}

    def _job(self) -> Object:
        return {
            "image": images()["fedcore-client:dev"],
            "require_digest": False,
            "gpu": None if self.gpu is None else {"resource": self.gpu, "count": 1},
            "cpu": "300m",
            "memory": "2Gi",
            "ephemeral_storage": "1Gi",
            "scratch": "512Mi",
            "shm": "256Mi",
            "pending_seconds": 300,
            "ttl_seconds": 20,
        }

    def _location(self, bucket: str) -> Object:
        return {"bucket": bucket, "endpoint": f"http://s3.{self.system}.svc:8333"}


def plan(rounds: int) -> str:
    """The demo's plan, with few rounds on few subjects and gates that such a model can pass."""
    yaml = YAML()
    shipped: Any = yaml.load((ROOT / "plans/brain_tumour.yaml").read_text(encoding="utf-8"))
    shipped["rounds"] = rounds
    shipped["training"]["epochs"] = 1
    shipped["task"]["dataset"]["arguments"]["fractions"] = [0.4, 0.3, 0.3]
    shipped["timeouts"] = {"round": 900, "idle": 600, "poll": 0.2}
    shipped["gates"] = {"min_macro_auc": 0.01}
    text = StringIO()
    yaml.dump(shipped, text)
    return text.getvalue()


def _secret(name: str, texts: dict[str, str]) -> Object:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def _api_server() -> Iterable[Object]:
    """Where the API server listens: by its Service, and behind it, where policies look."""
    service = json.loads(kubectl("get", "service", "kubernetes", "-n", "default", "-o", "json"))
    yield {"cidr": f"{service['spec']['clusterIP']}/32", "port": 443}
    slices = kubectl("get", "endpointslices", "-n", "default", "-o", "json",
                     "-l", "kubernetes.io/service-name=kubernetes")  # fmt: skip
    for found in json.loads(slices)["items"]:
        for endpoint in found["endpoints"]:
            for address in endpoint["addresses"]:
                yield {"cidr": f"{address}/32", "port": found["ports"][0]["port"]}
