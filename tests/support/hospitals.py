"""Three hospitals on one stand-in cluster: what each site's chart makes there, and their run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import toy
from cryptography.hazmat.primitives import serialization
from kube import KubeApi
from launching import IMAGE, KEYS

from fedcore.config.federation import Federation
from fedcore.config.plan import Plan
from fedcore.params import digest
from fedcore.server.connect import launchers
from fedcore.server.run import load_state
from fedcore.store.filesystem import FilesystemStore


class Hospitals:
    """Three sites on one stand-in cluster, each with its namespace, bucket (a folder) and chart."""

    def __init__(self, folder: Path, kube: KubeApi, plan: Plan) -> None:
        self.folder, self.kube, self.plan = folder, kube, plan
        for name in ("exchange", *toy.SITES):
            (folder / name).mkdir()
        self.exchange = FilesystemStore(folder / "exchange")
        self.jobs: dict[str, Any] = {"image": IMAGE, "gpu": None, "pending_seconds": 20}
        for site in toy.SITES:
            FilesystemStore(folder / site).put("table.csv", toy.table(site))
            kube.namespace(f"fedcore-{site}", config_maps={"fedcore-client": self._config(site)},
                           secrets=KEYS)  # fmt: skip
        self.kubeconfig = kube.kubeconfig(folder / "kubeconfig")

    def _config(self, site: str) -> dict[str, str]:
        return {
            "policy.yaml": toy.policy(site).model_dump_json(),
            "exchange.json": json.dumps({"folder": str(self.folder / "exchange")}),
            "data.json": json.dumps({"folder": str(self.folder / site)}),
        }

    def environment(self, site: str) -> dict[str, str]:
        """Of the site's client as a local process: what its Job would give it."""
        for name, text in self._config(site).items():
            (self.folder / f"{site}-{name}").write_text(text)
        config = self._config(site)
        return {
            "FEDCORE_POLICY": str(self.folder / f"{site}-policy.yaml"),
            "FEDCORE_EXCHANGE": config["exchange.json"],
            "FEDCORE_DATA": config["data.json"],
        }

    def break_policy(self, site: str) -> None:
        """A policy that nobody can read, wherever the site's client finds it."""
        config = {**self._config(site), "policy.yaml": "site: [\n"}
        self.kube.config_map(f"fedcore-{site}", "fedcore-client", config)
        (self.folder / f"{site}-policy.yaml").write_text(config["policy.yaml"])

    def federation(self, launch: str = "kubernetes") -> Federation:
        self._write_key()
        return Federation.model_validate(
            {
                "exchange": {"folder": self.folder / "exchange"},
                "signing_key": self.folder / "server.pem",
                "launch": launch,
                "sites": {site: {"kubernetes": self._place(site)} for site in toy.SITES},
            }
        )

    def _place(self, site: str) -> dict[str, Any]:
        return {"namespace": f"fedcore-{site}", "kubeconfig": self.kubeconfig, "job": self.jobs}

    def _write_key(self) -> None:
        pem = toy.KEY.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        (self.folder / "server.pem").write_bytes(pem)

    def run(self, launch: str = "kubernetes") -> tuple[str, list[Any]]:
        """Play the run; the digest of its params, and its records."""
        run = toy.open_toy(self.exchange, self.plan)
        with launchers(self.federation(launch), self.exchange, toy.KEY, self.folder) as launcher:
            records, _ = toy.play(run, launcher)
        return digest(load_state(run, self.plan.rounds).params), records

    def pods(self, site: str) -> list[str]:
        found = self.kube.pods(f"fedcore-{site}", phase="Running")
        return [pod["metadata"]["name"] for pod in found]
