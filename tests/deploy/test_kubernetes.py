"""`deploy/kubernetes/`, held to the schemas of Kubernetes, to its security profile, and to the service."""

import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Any

import jsonschema_rs

from receiver.app import build
from receiver.service import Role
from receiver.settings import CallbackSettings, DownloadSettings, WorkerSettings
from receiver.telemetry.metric_list import METRICS
from tests.deploy.deployed import (
    KUBERNETES,
    REPLICAS,
    Document,
    containers,
    documents,
    kind,
    pods,
    replicas,
    sidecar,
)
from tests.support.live import Live
from tests.support.running import ROOT

# `preStop.sleep` came with the first; the second is one that every release of the schemas has.
OLDEST, NEWEST = "1.30.0", "1.34.0"
EVERY = [*sidecar(), *replicas()]
PODS = pods(EVERY)
DEPLOYMENTS = kind(replicas(), "Deployment")
BUDGETS = kind(replicas(), "PodDisruptionBudget")
SCALERS = kind(replicas(), "HorizontalPodAutoscaler")


def named(one: Document) -> str:
    return f"{one['kind']}-{one['metadata']['name']}"


@cache
def definitions(version: str) -> jsonschema_rs.Registry:
    return jsonschema_rs.Registry([("json-schema:///_definitions.json", schema(version, "_definitions"))])


def schema(version: str, name: str) -> Any:
    """One of the schemas in the package `kubernetes-validate`, which allow no field that there is not.

    The package reads all of them anew for each document, so they are read here.
    """
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def faults(one: Document, version: str) -> list[str]:
    """Return what the schema of its kind finds."""
    group = re.sub(r"^([^./]*)(\.[^/]*)?/", r"\1-", one["apiVersion"])
    wanted = schema(version, f"{one['kind'].lower()}-{group}")
    found = jsonschema_rs.validator_for(wanted, registry=definitions(version)).iter_errors(one)
    return [f"{named(one)}, {version}: {error}" for error in found]


def test_manifests_are_what_kubernetes_takes() -> None:
    assert [fault for version in (OLDEST, NEWEST) for one in EVERY for fault in faults(one, version)] == []
    (pod,) = kind(sidecar(), "StatefulSet")
    pod["spec"]["template"]["spec"]["containers"][0]["imagee"] = "x"
    assert faults(pod, NEWEST)


def test_every_file_is_in_the_list() -> None:
    (listed,) = documents(REPLICAS / "kustomization.yaml")
    there = {file.name for file in REPLICAS.glob("*.yaml")} - {"kustomization.yaml", "secrets.example.yaml"}
    assert set(listed["resources"]) == there | {"secrets.yaml"}
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert listed["images"][0]["newTag"] == version
    assert f"/darkroom:{version}" in (KUBERNETES / "sidecar.yaml").read_text()


def loose(pod: Document) -> Iterator[str]:
    """Name what a pod is allowed beyond the restricted profile, and beyond what it needs.

    https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    spec = pod["spec"]
    wanted: Document = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001}
    wanted |= {"seccompProfile": {"type": "RuntimeDefault"}}
    yield from (name for name in wanted if spec["securityContext"].get(name) != wanted[name])
    # DARKROOM_PORT=tcp://10.0.0.1:80 would come of a Service that is called darkroom.
    given = ("automountServiceAccountToken", "enableServiceLinks")
    yield from (one for one in given if spec[one] is not False)
    yield from {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    yield from (volume["name"] for volume in spec["volumes"] if "emptyDir" not in volume)
    for one in containers(pod):
        held: Document = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
        held |= {"capabilities": {"drop": ["ALL"]}}
        if one["securityContext"] != held or not {"requests", "limits"} <= set(one["resources"]):
            yield one["name"]
        if "command" in one and "/tmp" not in [mount["mountPath"] for mount in one["volumeMounts"]]:
            yield f"{one['name']} has no /tmp"


def test_pods_keep_to_the_restricted_profile_and_more() -> None:
    assert [(pod["metadata"]["labels"], fault) for pod in PODS for fault in loose(pod)] == []
    (namespace,) = kind(replicas(), "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def probes() -> Iterator[tuple[Document, str, Any]]:
    for pod in PODS:
        for one in containers(pod):
            for name in ("startupProbe", "livenessProbe", "readinessProbe"):
                if name in one:
                    yield one, name, one[name]


def test_probes_ask_for_routes_that_exist(live: Live) -> None:
    working = build(live.settings, role=Role.WORK)
    routes = {getattr(route, "path", "") for route in working.web.routes}
    working.resources.database.close()
    found = list(probes())
    assert len(found) == 3 * len(PODS)
    for container, name, probe in found:
        wanted = "/readyz" if name == "readinessProbe" else "/healthz"
        assert wanted in routes
        if "exec" in probe:
            (url,) = re.findall(r"http://\S+?(?=')", probe["exec"]["command"][-1])
            assert url == f"http://127.0.0.1:8321{wanted}"
        else:
            port = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert probe["httpGet"] == {"path": wanted, "port": "http"}
            assert port == {"http": 8323 if "work" in container["command"] else 8321}


def test_selectors_are_of_pods_that_exist() -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(replicas())]
    for one in [*kind(replicas(), "Service"), *BUDGETS]:
        selector = one["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        assert sum(selector.items() <= pod.items() for pod in labels) == 1, named(one)
    names = {one["metadata"]["name"] for one in DEPLOYMENTS}
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in SCALERS}
    assert {one["metadata"]["name"] for one in BUDGETS} == names
    assert scaled == {"darkroom-callbacks", "darkroom-workers"} <= names
    for one in DEPLOYMENTS:
        assert ("replicas" in one["spec"]) == (one["metadata"]["name"] not in scaled)


def test_no_disruption_takes_the_last_one() -> None:
    fewest = {one["metadata"]["name"]: one["spec"].get("replicas", 0) for one in DEPLOYMENTS}
    for one in SCALERS:
        fewest[one["spec"]["scaleTargetRef"]["name"]] = one["spec"]["minReplicas"]
    for one in BUDGETS:
        have = fewest[one["metadata"]["name"]]
        left = one["spec"].get("minAvailable", have - one["spec"].get("maxUnavailable", 0))
        assert 0 < left < have, "one may go, and one stays"


def test_workers_are_scaled_by_a_metric_that_exists() -> None:
    scalers = {one["metadata"]["name"]: one["spec"] for one in SCALERS}
    (workers,) = scalers["darkroom-workers"]["metrics"]
    assert workers["external"]["metric"]["name"] in {metric.name for metric in METRICS}
    target = int(workers["external"]["target"]["averageValue"])
    assert target == 2 * WorkerSettings().concurrency
    (callbacks,) = scalers["darkroom-callbacks"]["metrics"]
    assert callbacks["resource"]["name"] == "cpu"


def test_images_on_their_way_have_room() -> None:
    needed = WorkerSettings().concurrency * DownloadSettings().max_bytes
    rooms = {
        " ".join(one["command"]): next(volume["emptyDir"]["sizeLimit"] for volume in pod["spec"]["volumes"])
        for pod in PODS
        for one in containers(pod)
        if "command" in one
    }
    assert rooms.pop("darkroom serve --only callbacks") == "64Mi", "it downloads nothing"
    assert len(rooms) == 3
    assert all(int(room.removesuffix("Gi")) * 2**30 > needed for room in rooms.values())


def test_the_ingress_lets_only_callbacks_through() -> None:
    (ingress,) = kind(replicas(), "Ingress")
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    service = {"service": {"name": "darkroom-callbacks", "port": {"name": "http"}}}
    assert paths == [{"path": "/callbacks/", "pathType": "Prefix", "backend": service}]
    assert "defaultBackend" not in ingress["spec"]
    hosts = {rule["host"] for rule in ingress["spec"]["rules"]}
    assert hosts == {host for tls in ingress["spec"]["tls"] for host in tls["hosts"]}
    (config,) = (one for one in kind(replicas(), "ConfigMap") if one["metadata"]["name"] == "darkroom")
    assert config["data"]["DARKROOM_PUBLIC_URL"] == f"https://{hosts.pop()}"
    notes = ingress["metadata"]["annotations"]
    assert notes["nginx.ingress.kubernetes.io/enable-access-log"] == "false"
    size = notes["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(size.removesuffix("m")) * 2**20 == CallbackSettings().max_bytes
