"""A pod's port on this machine's loopback, through the API server: ``kubectl port-forward``."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

from kubernetes import client
from kubernetes.stream import portforward


class Forward:
    """A context manager. Each connection made here is one to the pod."""

    def __init__(self, api: client.ApiClient, namespace: str, pod: str, port: int) -> None:
        # An ApiClient of its own: while one opens a stream, it serves nobody else.
        self._core = client.CoreV1Api(client.ApiClient(api.configuration))
        self._target = (pod, namespace)
        self._pod_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="port-forward", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            try:
                there = portforward(
                    self._core.connect_get_namespaced_pod_portforward,
                    *self._target,
                    ports=str(self._pod_port),
                ).socket(self._pod_port)
            except Exception:  # whatever it is, this connection is not made
                here.close()
                continue
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=_copy, args=(source, sink), daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Until either side ends; then both do."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
