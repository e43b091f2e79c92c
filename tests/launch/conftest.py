"""A site on the stand-in, and launchers for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kube import KubeApi
from launching import CONFIG, KEYS, NAMESPACE, Client, settings

from fedcore.launch.kubernetes import KubernetesLauncher


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def kube(client: Client) -> Iterator[KubeApi]:
    with KubeApi(runner=client) as api:
        api.namespace(NAMESPACE, config_maps=CONFIG, secrets=KEYS)
        yield api


@pytest.fixture
def launch(kube: KubeApi, tmp_path: Path) -> Iterator[Callable[..., KubernetesLauncher]]:
    """Makes launchers for site north; they are closed at the end."""
    made = []

    def make(namespace: str = NAMESPACE, **job: Any) -> KubernetesLauncher:
        config = kube.kubeconfig(tmp_path / "kubeconfig")
        made.append(KubernetesLauncher({"north": settings(namespace, config, **job)}))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()
