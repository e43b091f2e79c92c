"""The only reader of environment variables: what a process is told about where it runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fedcore.config.federation import Drill, Location
from fedcore.errors import ConfigError

SettingsT = TypeVar("SettingsT", bound=BaseSettings)


class Keys(BaseModel):
    """An access key and its secret. The secret never shows in a log or a traceback."""

    access_key: str
    secret_key: SecretStr


class DataSettings(BaseSettings):
    """Where a site's data are, e.g. ``FEDCORE_DATA__BUCKET``: all that preparing them needs."""

    model_config = SettingsConfigDict(env_prefix="FEDCORE_", env_nested_delimiter="__")

    data: Location
    data_keys: Keys | None = None


class DicomwebSettings(BaseSettings):
    """What a DICOMweb server knows an import by: user and password, or a token."""

    model_config = SettingsConfigDict(env_prefix="FEDCORE_DICOMWEB_")

    user: str | None = None
    password: SecretStr | None = None
    token: SecretStr | None = None


class ClientSettings(BaseSettings):
    """A client's surroundings, e.g. ``FEDCORE_EXCHANGE__BUCKET`` and ``FEDCORE_POLICY``.

    Without keys, boto3's own chain serves (environment, profile, instance or web identity).
    """

    model_config = SettingsConfigDict(env_prefix="FEDCORE_", env_nested_delimiter="__")

    policy: Path
    exchange: Location
    exchange_keys: Keys | None = None
    data: Location
    data_keys: Keys | None = None
    identity: Path | None = None
    drill: Drill | None = None


class AgentSettings(ClientSettings):
    """An agent's surroundings: the client's, and how and where it makes Jobs."""

    job: Path
    namespace: str | None = None
    kubeconfig: Path | None = None
    poll: float = Field(default=5.0, gt=0)

    def own_namespace(self) -> str:
        """The namespace given, or that of this pod. Raises ConfigError if this is no pod."""
        if self.namespace is not None:
            return self.namespace
        try:
            return _POD_NAMESPACE.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(
                "environment variable FEDCORE_NAMESPACE: needed outside a pod"
            ) from error


class FlowSettings(BaseSettings):
    """What a flow run is told that nobody types: in a cluster, the chart does."""

    model_config = SettingsConfigDict(env_prefix="FEDCORE_")

    metrics_port: int | None = None
    metrics_address: str = "0.0.0.0"  # noqa: S104  # a pod's; the chart's NetworkPolicy says who


_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_INHERITED = ("PATH", "HOME", "LANG", "PYTHONPATH", "TMPDIR", "SSL_CERT_FILE")


def inherited_environment() -> dict[str, str]:
    """What a child process may see of this one's environment: never a credential."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def client_settings() -> ClientSettings:
    """Read the environment. Raises ConfigError that names each missing or wrong variable."""
    return _read(ClientSettings)


def dicomweb_settings() -> DicomwebSettings:
    """Read the environment. Raises ConfigError that names each wrong variable."""
    return _read(DicomwebSettings)


def data_settings() -> DataSettings:
    """Read the environment. Raises ConfigError that names each missing or wrong variable."""
    return _read(DataSettings)


def agent_settings() -> AgentSettings:
    """Read the environment. Raises ConfigError that names each missing or wrong variable."""
    return _read(AgentSettings)


def flow_settings() -> FlowSettings:
    """Read the environment. Raises ConfigError that names each wrong variable."""
    return _read(FlowSettings)


def _read(kind: type[SettingsT]) -> SettingsT:
    try:
        return kind()
    except ValidationError as error:
        faults = [
            f"environment variable FEDCORE_{'__'.join(map(str, item['loc'])).upper()}: "
            f"{item['msg'].lower()}"
            for item in error.errors()
        ]
        raise ConfigError("\n".join(faults)) from error


def use_prefect(api_url: str | None, home: Path, *, console: str = "CRITICAL") -> None:
    """Point this process at a Prefect server. Call it before Prefect is imported.

    Without a URL, the server that the environment names serves; if it names none, a temporary one
    that Prefect starts itself, and whose first start makes its database (``home`` holds it).
    fedcore's own log goes to Prefect's, so that the UI shows it. ``console``: from which level on
    it is printed too; unset, the terminal stays for progress.
    """
    wanted = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "fedcore",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",  # the stack's watchdog also logs
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": console,
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # what it could not send, while it is away
    }
    if api_url is not None:
        wanted |= {"PREFECT_API_URL": api_url, "PREFECT_HOME": str(home)}
    elif "PREFECT_API_URL" not in os.environ:
        wanted |= {
            "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(home)),
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        }
    os.environ.update(wanted)
