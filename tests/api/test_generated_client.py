"""A client that a generator makes of `/openapi.json`, with nothing of ours in it, serves an application."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.sandbox import SandboxServer
from tests.api.test_openapi import READER, SUBMITTER, TOKENS, document, operations
from tests.support.live import IMAGEN, Live, started
from tests.support.running import environment

Module = Callable[[str], Any]


@pytest.fixture(scope="module")
def live(
    s3_server: EmbeddedS3, sandbox: SandboxServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("generated")
    with started(s3_server, folder, sandbox=sandbox, api_tokens=TOKENS) as running:
        yield running


@pytest.fixture(scope="module")
def package(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder that the generated package is in."""
    folder: Path = tmp_path_factory.mktemp("package")
    told = document(live)
    (folder / "openapi.json").write_text(json.dumps(told))
    # Nobody reads the code, so it need not be formatted.
    config = {
        "post_hooks": [],
        "content_type_overrides": dict.fromkeys(images(told), "application/octet-stream"),
    }
    (folder / "config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "openapi_python_client", "generate", "--fail-on-warning"),
            *("--path", "openapi.json", "--config", "config.json", "--meta", "none"),
            *("--output-path", "generated_darkroom"),
        ],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "generated_darkroom"]:
        del sys.modules[name]


def images(told: dict[str, Any]) -> set[str]:
    """The media types that the generator has to be told to be bytes."""
    answers = [answer for _, operation in operations(told) for answer in operation["responses"].values()]
    return {kind for answer in answers for kind in answer.get("content", ()) if kind.startswith("image/")}


@pytest.fixture
def module(package: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Import a module of the generated package."""
    monkeypatch.syspath_prepend(str(package))

    def load(name: str) -> ModuleType:
        return import_module(f"generated_darkroom.{name}")

    return load


def client(live: Live, module: Module, token: str) -> Any:
    return module("client").AuthenticatedClient(base_url=live.url, token=token)


def test_it_submits_waits_searches_and_takes_the_image(live: Live, module: Module) -> None:
    models = module("models")
    asked = models.SubmitBody(
        gateway=IMAGEN["gateway"],
        model=IMAGEN["model"],
        prompt="a lighthouse in the fog",
        tags=models.SubmitBodyTags.from_dict({"trip": "north"}),
    )
    with client(live, module, SUBMITTER) as darkroom:
        submit = module("api.jobs.submit_job").sync_detailed
        taken = submit(client=darkroom, body=asked, idempotency_key="n1")
        again = submit(client=darkroom, body=asked, idempotency_key="n1")
        assert (taken.status_code, again.status_code) == (202, 200)
        assert again.parsed.id == taken.parsed.id
        job = module("api.jobs.show_job").sync(taken.parsed.id, client=darkroom, wait=30)
        assert job.status is models.Status.ARCHIVED
        assert {type(event).__name__ for event in job.timeline} == {
            "Moved",
            "Attempted",
            "Delivered",
            "Stored",
        }
        tags = models.ListOutputsTags.from_dict({"tag.trip": "north"})
        page = module("api.outputs.list_outputs").sync(client=darkroom, q="lighthouse", tags=tags)
        (found,) = page.outputs
        assert (found.id, found.prompt, page.next_cursor) == (job.outputs[0].id, asked.prompt, None)
        image = module("api.outputs.fetch_image").sync_detailed(found.id, client=darkroom, stream=True)
        assert image.headers["content-type"] == found.media_type
        assert hashlib.sha256(image.content).hexdigest() == found.sha256


def test_it_reads_refusals(live: Live, module: Module) -> None:
    models = module("models")
    asked = models.SubmitBody(gateway="nowhere", model="m", prompt="p")
    submit = module("api.jobs.submit_job").sync
    with client(live, module, SUBMITTER) as darkroom:
        refused = submit(client=darkroom, body=asked)
        assert (type(refused), refused.code) == (models.Problem, "unknown_gateway")
        wrong = submit(client=darkroom, body=models.SubmitBody(gateway="apiframe", model="m", prompt=" "))
        assert [fault.field for fault in wrong.faults] == ["prompt"]
    with client(live, module, READER) as darkroom:
        assert submit(client=darkroom, body=asked).code == "forbidden"


def test_it_has_every_operation(live: Live, module: Module) -> None:
    for methods in document(live)["paths"].values():
        for operation in methods.values():
            (tag,), name = operation["tags"], operation["operationId"]
            assert callable(module(f"api.{tag}.{name}").sync_detailed)
