"""The Job in which a site trains on Kubernetes: what the site's cluster has to give it.

The hospital writes these settings into its chart (``job:``), where its own admission policy bounds
them, and hands the same lines to the coordinator for the federation file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from fedcore.config import yaml
from fedcore.config.section import Name, Section

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""A Kubernetes quantity, e.g. ``500m``, ``16Gi``."""


class Gpu(Section):
    """The extended resource that the site's device plugin offers."""

    resource: str = Field(
        default="nvidia.com/gpu",
        pattern=r"^[a-z0-9.-]+/[A-Za-z0-9_.-]+$",
        description="nvidia.com/gpu, nvidia.com/mig-1g.10gb, amd.com/gpu, …",
    )
    count: int = Field(default=1, ge=1)


class JobSettings(Section):
    """One site's Job: image, resources, where it may run, and for how long."""

    image: str = Field(min_length=1, description="the client image, by digest (name@sha256:…)")
    require_digest: bool = Field(
        default=True, description="false admits tags, which can change under one's feet"
    )
    image_pull_policy: Annotated[str, Field(pattern="^(IfNotPresent|Always|Never)$")] = (
        "IfNotPresent"
    )
    image_pull_secrets: list[Name] = Field(default=[])
    gpu: Gpu | None = Field(default=Gpu(), description="null: train on the CPU")
    cpu: Quantity = "4"
    memory: Quantity = "16Gi"
    ephemeral_storage: Quantity = Field(default="12Gi", description="scratch and logs together")
    scratch: Quantity = Field(default="10Gi", description="size of /scratch")
    shm: Quantity = Field(default="1Gi", description="size of /dev/shm; counts as memory")
    runtime_class: str | None = None
    node_selector: dict[str, str] = Field(default={})
    tolerations: list[dict[str, Any]] = Field(default=[])
    affinity: dict[str, Any] | None = None
    priority_class: str | None = None
    queue: str | None = Field(
        default=None, description="Kueue's local queue; the Job is suspended until admitted"
    )
    backoff_limit: int = Field(
        default=3, ge=0, description="new starts after a temporary failure; disruptions are free"
    )
    deadline_seconds: int = Field(default=86_400, ge=1, description="longest life of the Job")
    ttl_seconds: int = Field(default=600, ge=0, description="until a finished Job is removed")
    pending_seconds: int = Field(
        default=60, ge=0,
        description="how long the pod may wait for a node; raise it where nodes are scaled up",
    )  # fmt: skip
    service_account: Name = "fedcore-client"
    config_map: Name = "fedcore-client"
    secret: Name = "fedcore-client"  # noqa: S105  # the name of a Secret, not a secret

    @model_validator(mode="after")
    def _image_is_pinned(self) -> Self:
        if self.require_digest and "@sha256:" not in self.image:
            raise ValueError(
                f"image {self.image!r} is not named by digest (name@sha256:…); name it so, or "
                "set require_digest: false"
            )
        return self


class KubernetesSite(Section):
    """Where a site's Jobs run: the namespace, the cluster, and the settings the site gave."""

    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    context: str | None = Field(default=None, description="context of the kubeconfig")
    kubeconfig: Path | None = Field(
        default=None,
        description="unset: this pod's service account, or where kubectl looks",
    )
    job: JobSettings


def load(path: Path) -> JobSettings:
    """Read a file of job settings. Raises ConfigError that names each fault with its line."""
    return yaml.load(path, JobSettings)
