"""Who may reach whom in `deploy/kubernetes/replicas`, worked out from its network policies.

https://kubernetes.io/docs/concepts/services-networking/network-policies/: a pod that any policy selects for
a direction may do in that direction what one of them allows, and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from receiver.download.ssrf import FORBIDDEN
from tests.deploy.deployed import Document, containers, kind, pods, replicas

HERE = "darkroom"
POLICIES = kind(replicas(), "NetworkPolicy")
PODS = pods(replicas())


@dataclass(frozen=True)
class Place:
    """Somewhere that a connection begins or ends: a pod, or an address outside of the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    client: bool = False
    """Whether its namespace is labelled as one of the API's clients."""

    @property
    def namespace_labels(self) -> Mapping[str, str]:
        client = {"darkroom.example.com/client": "true"} if self.client else {}
        return {"kubernetes.io/metadata.name": self.namespace} | client


def ours(component: str) -> Place:
    every = [pod["metadata"]["labels"] for pod in PODS]
    (labels,) = [one for one in every if one["app.kubernetes.io/component"] == component]
    return Place(HERE, labels)


PLACES = {
    "callbacks": ours("callbacks"),
    "api": ours("api"),
    "workers": ours("workers"),
    "another pod here": Place(HERE, {"app.kubernetes.io/name": "something-else"}),
    "ingress": Place("ingress-nginx", {"app.kubernetes.io/name": "ingress-nginx"}),
    "another pod beside it": Place("ingress-nginx", {"app.kubernetes.io/name": "something-else"}),
    "prometheus": Place("monitoring", {"app.kubernetes.io/name": "prometheus"}),
    "grafana": Place("monitoring", {"app.kubernetes.io/name": "grafana"}),
    "a client": Place("shop", {"app": "shop"}, client=True),
    "no client": Place("blog", {"app": "blog"}),
    "names": Place("kube-system", {"k8s-app": "kube-dns"}),
    "postgresql": Place(address="192.0.2.10"),
    "bucket": Place(address="192.0.2.20"),
    "internet": Place(address="1.1.1.1"),
    "internet 6": Place(address="2606:4700:4700::1111"),
    "an inner address": Place(address="10.96.0.1"),
    "machine's metadata": Place(address="169.254.169.254"),
    "an inner address 6": Place(address="fd00:ec2::254"),
}

PORTS = (53, 80, 443, 5432, 6443, 8321, 8323)

ALLOWED = {
    ("ingress", "callbacks", 8321),
    *(("prometheus", component, 8321) for component in ("callbacks", "api")),
    ("prometheus", "workers", 8323),
    ("a client", "api", 8321),
    *((component, "names", 53) for component in ("callbacks", "api", "workers", "another pod here")),
    *((component, "postgresql", 5432) for component in ("callbacks", "api", "workers")),
    ("api", "bucket", 443),
    ("workers", "bucket", 443),
    ("workers", "internet", 443),
    ("workers", "internet 6", 443),
}
"""All that may be connected, with a pod of this namespace at one of the ends."""


def ports_of(place: Place) -> dict[str, int]:
    for pod in PODS:
        if pod["metadata"]["labels"] == place.labels:
            return {port["name"]: port["containerPort"] for one in containers(pod) for port in one["ports"]}
    return {}


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, "whatever else there is would have to be worked out here too"
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def is_peer(peer: Document, place: Place, of: Document) -> bool:
    assert set(peer) <= {"podSelector", "namespaceSelector", "ipBlock"}
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        address = ip_address(place.address) if place.address else None
        inside = address is not None and address in ip_network(block["cidr"])
        return inside and not any(address in ip_network(one) for one in block.get("except", []))
    if place.address:
        return False
    near = place.namespace == of["metadata"].get("namespace", HERE)
    if "namespaceSelector" in peer:
        near = selects(peer["namespaceSelector"], place.namespace_labels)
    return near and selects(peer.get("podSelector", {}), place.labels)


def may(place: Place, other: Place, port: int, direction: str) -> bool:
    """Whether the policies let a place connect (`Egress`), or be connected to (`Ingress`)."""
    if place.namespace != HERE:
        return True
    chosen = [
        policy
        for policy in POLICIES
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], place.labels)
    ]
    named = ports_of(place if direction == "Ingress" else other)
    for policy in chosen:
        for rule in policy["spec"].get(direction.lower(), []):
            peers = rule["from" if direction == "Ingress" else "to"]
            open_ports = {named.get(one["port"], one["port"]) for one in rule["ports"]}
            if port in open_ports and any(is_peer(peer, other, policy) for peer in peers):
                return True
    return not chosen


def test_everybody_reaches_only_what_is_listed() -> None:
    found = {
        (begin, end, port)
        for begin, source in PLACES.items()
        for end, target in PLACES.items()
        for port in PORTS
        if source != target and HERE in (source.namespace, target.namespace)
        if may(source, target, port, "Egress") and may(target, source, port, "Ingress")
    }
    assert found == ALLOWED


def test_workers_reach_no_forbidden_address() -> None:
    for block in FORBIDDEN:
        first = Place(address=str(block.network.network_address))
        last = Place(address=str(block.network.broadcast_address))
        assert not may(PLACES["workers"], first, 443, "Egress"), block
        assert not may(PLACES["workers"], last, 443, "Egress"), block
