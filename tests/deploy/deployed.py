"""What stands in `deploy/`: the documents of its YAML files, and every process that they start.

Each process comes with its command and the environment that it is given, so that both can be held to the
code. What an operator has to fill in stands there empty; `FILLED` has something for each.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.running import ROOT

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
REPLICAS = KUBERNETES / "replicas"

FILLED: Mapping[str, str] = {
    "DARKROOM_API_TOKENS": "me:admin:a-long-random-text",
    "DARKROOM_DATABASE_URL": "postgresql://darkroom:a-password@db.example/darkroom",
    "DARKROOM_GATEWAYS__APIFRAME__API_KEY": "afk_your_api_key",
    "DARKROOM_GATEWAYS__API_IN_ONE__API_KEY": "aio_your_api_key",
    "DARKROOM_NOTIFY__SECRETS": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "DARKROOM_S3__ACCESS_KEY": "an-access-key",
    "DARKROOM_S3__SECRET_KEY": "a-secret-key",
    "DARKROOM_SECRET_KEYS": "a-long-random-text-that-signs",
}

Document = dict[str, Any]


@dataclass(frozen=True)
class Started:
    """A process of Darkroom as a file in `deploy/` starts it."""

    where: str
    command: Sequence[str]
    given: Mapping[str, str]
    """Its environment, as it stands there; empty where an operator has to fill something in."""

    def filled(self) -> dict[str, str]:
        """Its environment once an operator has filled it in."""
        return {name: value or FILLED[name] for name, value in self.given.items()}


def documents(*files: Path) -> list[Document]:
    """The documents of YAML files."""
    return [one for file in files for one in yaml.safe_load_all(file.read_text(encoding="utf-8")) if one]


def replicas() -> list[Document]:
    """Every document of `deploy/kubernetes/replicas`, but for the one that lists them."""
    return documents(*(file for file in sorted(REPLICAS.glob("*.yaml")) if file.name != "kustomization.yaml"))


def sidecar() -> list[Document]:
    return documents(KUBERNETES / "sidecar.yaml")


def kind(among: Sequence[Document], name: str) -> list[Document]:
    """Those of one kind."""
    return [one for one in among if one["kind"] == name]


def pods(among: Sequence[Document]) -> list[Document]:
    """The pods that are described, each as `metadata` and `spec`."""
    return [one["spec"]["template"] for one in among if "template" in one.get("spec", {})]


def containers(pod: Document) -> list[Document]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def image() -> Started:
    """What the Dockerfile starts if nothing else is said."""
    text = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text(encoding="utf-8")).rpartition("\nFROM ")[2]
    (command,) = re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    given = dict(
        word.split("=", 1)
        for line in re.findall(r"^ENV (.*)$", text, re.MULTILINE)
        for word in shlex.split(line)
    )
    ours = {name: value for name, value in given.items() if name.startswith("DARKROOM_")}
    return Started("Dockerfile", yaml.safe_load(command), ours)


def compose(*files: str) -> Document:
    """The services of Compose files, the later ones laid over the earlier, with nothing set outside."""
    services: Document = {}
    for file in files:
        text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (DEPLOY / file).read_text(encoding="utf-8"))
        for name, service in yaml.safe_load(text)["services"].items():
            before = services.setdefault(name, {})
            environment = before.get("environment", {}) | service.get("environment", {})
            services[name] = before | service | {"environment": environment}
    return services


def in_compose() -> Iterator[Started]:
    """Every container of Darkroom's image that Compose starts, but for the one that makes the secrets.

    What that one gives to Darkroom, and an operator in `darkroom.env`, is to be filled in here.
    """
    made = "DATABASE_URL SECRET_KEYS NOTIFY__SECRETS API_TOKENS S3__ACCESS_KEY S3__SECRET_KEY"
    empty = dict.fromkeys((f"DARKROOM_{name}" for name in made.split()), "")
    keys = dict.fromkeys((name for name in FILLED if name.endswith("API_KEY")), "")
    for where, files, given in (
        ("compose", ["compose.yaml"], empty | keys),
        ("compose with sandbox", ["compose.yaml", "compose.sandbox.yaml"], empty),
    ):
        for name, service in compose(*files).items():
            if service.get("command", [])[:1] == ["darkroom"]:
                ours = given if name == "darkroom" else {}
                environment = {**image().given, **ours, **service["environment"]}
                yield Started(f"{where}: {name}", service["command"], environment)


def in_kubernetes() -> Iterator[Started]:
    """Every container of Darkroom's image that the manifests start."""
    for folder, among in (("sidecar", sidecar()), ("replicas", replicas())):
        for pod in pods(among):
            for one in containers(pod):
                if one.get("command", [])[:1] == ["darkroom"]:
                    where = pod["metadata"]["labels"].get("app.kubernetes.io/component", one["name"])
                    yield Started(
                        f"{folder}: {where}", one["command"], {**image().given, **_given(among, one)}
                    )


def _given(among: Sequence[Document], container: Document) -> dict[str, str]:
    given: dict[str, str] = {}
    for source in container.get("envFrom", []):
        ((how, named),) = source.items()
        wanted = {"configMapRef": "ConfigMap", "secretRef": "Secret"}[how]
        (found,) = (one for one in kind(among, wanted) if one["metadata"]["name"] == named["name"])
        given |= found.get("data") or found["stringData"]
    for one in container.get("env", []):
        given[one["name"]] = one["value"]
    return given


def started() -> Iterator[Started]:
    """Every process of Darkroom that anything in `deploy/` starts."""
    without = {"DARKROOM_S3__BUCKET": "my-images", "DARKROOM_API_TOKENS": ""}
    yield Started("Dockerfile", image().command, {**image().given, **without})
    yield from in_compose()
    yield from in_kubernetes()
