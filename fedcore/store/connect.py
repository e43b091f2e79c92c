"""From a location in a file to the Store that reaches it."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import NamedTuple

from fedcore import settings
from fedcore.config.federation import Location
from fedcore.errors import ConfigError
from fedcore.store.api import Store
from fedcore.store.filesystem import FilesystemStore


class Keys(NamedTuple):
    """What an S3 service knows a caller by."""

    access_key: str
    secret_key: str


def profile_keys(profile: str, credentials_file: Path) -> Keys:
    """The keys of a profile in a file of the form of ``~/.aws/credentials``.

    Raises ConfigError that names the file and the profile.
    """
    parser = configparser.ConfigParser()
    try:
        parser.read_string(credentials_file.read_text(encoding="utf-8"))
        section = parser[profile]
        return Keys(section["aws_access_key_id"], section["aws_secret_access_key"])
    except (OSError, configparser.Error, KeyError) as error:
        raise ConfigError(
            f"{credentials_file}: no keys for profile {profile!r} ({error}); it needs "
            "aws_access_key_id and aws_secret_access_key"
        ) from error


def keys_of(setting: settings.Keys | None) -> Keys | None:
    """The keys that a process was given in its environment."""
    if setting is None:
        return None
    return Keys(setting.access_key, setting.secret_key.get_secret_value())


def open_store(
    location: Location, *, keys: Keys | None = None, profile: str | None = None
) -> Store:
    """The store at ``location``, with these keys, this profile, or what boto3's own chain finds.

    boto3 is imported only where there is a bucket: a folder needs no S3.
    """
    if location.folder is not None:
        return FilesystemStore(location.folder)
    from fedcore.store import s3

    access_key, secret_key = keys if keys is not None else (None, None)
    if location.bucket is None:
        raise ConfigError("a location needs a bucket or a folder")
    return s3.connect(
        bucket=location.bucket,
        endpoint=location.endpoint,
        region=location.region,
        path_style=location.path_style,
        ca_bundle=location.ca_bundle,
        access_key=access_key,
        secret_key=secret_key,
        profile=profile if keys is None else None,
    )
