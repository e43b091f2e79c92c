"""What a cluster's network does: whether policies hold, and whether pods reach the API server."""

from __future__ import annotations

import ipaddress

from cluster_api import Access, Object, wait_for
from cluster_pods import pod
from cluster_s3 import PORT

_ENDED = ("Succeeded", "Failed")

# A policy is in force some moments after it was made: what connects still is tried again.
_IS_CUT = """
import socket, sys, time
give_up = time.monotonic() + 20
while time.monotonic() < give_up:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 3).close()
    except OSError:
        sys.exit(0)
    time.sleep(1)
sys.exit(1)
"""
_CONNECTS = """
import os, socket
service = os.environ["KUBERNETES_SERVICE_HOST"], int(os.environ["KUBERNETES_SERVICE_PORT"])
socket.create_connection(service, 10).close()
"""
_DENY_ALL: Object = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "deny-all"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
}


def network_is_enforced(admin: Access, namespace: str, image: str, address: str) -> bool:
    """Whether a pod that may reach nothing cannot reach the S3 pod at ``address``."""
    policy = {**_DENY_ALL, "metadata": {"name": "deny-all", "namespace": namespace}}
    admin.create(policy)
    return _succeeds(admin, namespace, image, ["python", "-c", _IS_CUT, address, str(PORT)])


def pods_reach_the_api(admin: Access, namespace: str, image: str) -> bool:
    """Whether the API server's Service answers to pods, as kube-proxy or its like sees to."""
    return _succeeds(admin, namespace, image, ["python", "-c", _CONNECTS])


def api_addresses(admin: Access) -> list[Object]:
    """The API server as destinations of a network policy: its Service's and its own addresses."""
    service = admin.get("Service", "kubernetes", "default")
    assert service is not None
    places = {(service["spec"]["clusterIP"], port["port"]) for port in service["spec"]["ports"]}
    selector = "kubernetes.io/service-name=kubernetes"
    for found in admin.list("EndpointSlice", "default", selector):
        for endpoint in found.get("endpoints") or ():
            for address in endpoint["addresses"]:
                places |= {(address, port["port"]) for port in found.get("ports") or ()}
    return [
        {"cidr": str(ipaddress.ip_network(address)), "port": port}
        for address, port in sorted(places)
    ]


def _succeeds(admin: Access, namespace: str, image: str, command: list[str]) -> bool:
    admin.create(pod("probe", namespace, image, command))

    def ended() -> Object | None:
        found = admin.get("Pod", "probe", namespace)
        return found if found is not None and found["status"].get("phase") in _ENDED else None

    found = wait_for("the probe of the network has ended", ended, 180)
    admin.delete("Pod", "probe", namespace)
    return bool(found["status"]["phase"] == "Succeeded")
