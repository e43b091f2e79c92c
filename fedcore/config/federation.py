"""The federation file: where the exchange and the sites are. It never holds a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from fedcore.config import yaml
from fedcore.config.plan import Name, Section


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


class Site(Section):
    """One site as the coordinator knows it. ``data`` and ``policy`` serve ``launch: process``."""

    data: Location | None = None
    policy: Path | None = None
    profile: str | None = Field(
        default=None, description="profile of the credentials file that holds this site's own keys"
    )
    namespace: Name | None = Field(default=None, description="Kubernetes namespace of the site")


class Federation(Section):
    """The sites, and the one bucket that both sides touch."""

    exchange: Location
    profile: str | None = Field(default=None, description="profile with the server's keys")
    credentials_file: Path | None = Field(
        default=None, description="file with the profiles; unset = where boto3 looks"
    )
    signing_key: Path = Field(description="Ed25519 private key, PEM; made by `fedcore keys create`")
    sites: dict[Name, Site] = Field(min_length=1)


def load(path: Path) -> Federation:
    """Read a federation file; its relative paths are relative to it. Raises ConfigError."""
    federation = yaml.load(path, Federation)
    base = path.resolve().parent

    def rebase_location(location: Location) -> Location:
        paths = {"folder": location.folder, "ca_bundle": location.ca_bundle}
        return location.model_copy(
            update={name: base / value for name, value in paths.items() if value is not None}
        )

    def rebase_site(site: Site) -> Site:
        return site.model_copy(
            update={
                "data": site.data and rebase_location(site.data),
                "policy": site.policy and base / site.policy,
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
