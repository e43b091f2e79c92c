"""The federation file: where the exchange and the sites are. It never holds a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from fedcore.config import yaml
from fedcore.config.job import KubernetesSite
from fedcore.config.section import Name, Section


class Location(Section):
    """Where objects lie: a bucket of any S3 service, or a folder."""

    bucket: str | None = Field(default=None, description="S3 bucket")
    endpoint: str | None = Field(default=None, description="URL of the S3 service; unset = AWS")
    region: str = "us-east-1"
    path_style: bool = Field(default=True, description="http://host/bucket; false: bucket.host")
    ca_bundle: Path | None = Field(default=None, description="PEM file of a private authority")
    folder: Path | None = Field(default=None, description="a folder instead of a bucket")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.bucket is None) == (self.folder is None):
            raise ValueError("give either bucket (with endpoint) or folder")
        return self


Launch = Literal["process", "kubernetes", "agent", "none"]
"""How a site's client is started.

``process``: here, as a local process. ``kubernetes``: as a Job in the site's namespace. ``agent``:
as the same Job, by the site's own ``fedcore agent``. ``none``: by the site, by whatever means.
"""


Drill = Literal["keys", "shares", "update", "consistency", "unmask"]
"""What a client says in the course of a round, in order; without masks, ``update`` alone."""


class Site(Section):
    """One site as the coordinator knows it. ``data`` and ``policy`` serve ``launch: process``."""

    launch: Launch | None = Field(default=None, description="unset: the federation's")
    kubernetes: KubernetesSite | None = Field(
        default=None, description="for launch: kubernetes; the site's chart prints it"
    )
    data: Location | None = None
    policy: Path | None = None
    profile: str | None = Field(
        default=None, description="profile of the credentials file that holds this site's own keys"
    )
    identities: list[str] = Field(
        default=[], description="the site's public identities, base64; its replies have to be "
        "signed by one of them. Two while it changes its key; none: no signature is asked for"
    )  # fmt: skip
    identity: Path | None = Field(
        default=None, description="launch: process: the site's private identity, PEM"
    )
    drill: Drill | None = Field(
        default=None, description="launch: process, for a fire drill: in the second round the "
        "client ends itself before it says this"
    )  # fmt: skip


class Federation(Section):
    """The sites, and the one bucket that both sides touch."""

    exchange: Location
    profile: str | None = Field(default=None, description="profile with the server's keys")
    credentials_file: Path | None = Field(
        default=None, description="file with the profiles; unset = where boto3 looks"
    )
    signing_key: Path = Field(description="Ed25519 private key, PEM; made by `fedcore keys create`")
    launch: Launch = Field(default="process", description="how the sites' clients are started")
    data_note: str | None = Field(
        default=None, description="what a report's reader must know of the data first"
    )
    revoked: list[str] = Field(
        default=[], description="identities that count no more, whoever lists or endorses them"
    )
    rotations: list[str] = Field(
        default=[], description="what `fedcore keys rotate` printed at sites that changed their key"
    )
    sites: dict[Name, Site] = Field(min_length=1)

    def launch_of(self, site: str) -> Launch:
        """How this site's client is started."""
        return self.sites[site].launch or self.launch

    @model_validator(mode="after")
    def _can_be_launched(self) -> Self:
        for name in self.sites:
            if self.launch_of(name) == "kubernetes" and self.sites[name].kubernetes is None:
                raise ValueError(
                    f"site {name}: launch: kubernetes needs kubernetes: (namespace and job); "
                    "the notes of the site's chart print it"
                )
        return self


def load(path: Path) -> Federation:
    """Read a federation file; its relative paths are relative to it. Raises ConfigError."""
    federation = yaml.load(path, Federation)
    base = path.resolve().parent

    def rebase_location(location: Location) -> Location:
        paths = {"folder": location.folder, "ca_bundle": location.ca_bundle}
        return location.model_copy(
            update={name: base / value for name, value in paths.items() if value is not None}
        )

    def rebase_kubernetes(place: KubernetesSite) -> KubernetesSite:
        return place.model_copy(update={"kubeconfig": place.kubeconfig and base / place.kubeconfig})

    def rebase_site(site: Site) -> Site:
        return site.model_copy(
            update={
                "data": site.data and rebase_location(site.data),
                "policy": site.policy and base / site.policy,
                "identity": site.identity and base / site.identity,
                "kubernetes": site.kubernetes and rebase_kubernetes(site.kubernetes),
            }
        )

    return federation.model_copy(
        update={
            "exchange": rebase_location(federation.exchange),
            "credentials_file": federation.credentials_file and base / federation.credentials_file,
            "signing_key": base / federation.signing_key,
            "sites": {name: rebase_site(site) for name, site in federation.sites.items()},
        }
    )
