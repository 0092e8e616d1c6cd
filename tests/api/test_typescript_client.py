"""A TypeScript client that `openapi-typescript` and `openapi-fetch` make of `/openapi.json` alone.

The packages come from the registry that npm is set up for; without Node.js or that registry this is skipped.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.api.test_openapi import document
from tests.support.live import Live
from tests.support.running import ROOT

pytestmark = pytest.mark.exhaustive

PACKAGES = ("openapi-typescript@7", "openapi-fetch", "typescript@5")
STRICT = ("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess")
AS_A_MODULE = ("--module", "nodenext", "--target", "es2022", "--lib", "es2022,dom")

PROGRAM = """\
import createClient from "openapi-fetch";
import type { components, paths } from "./darkroom.js";

const darkroom = createClient<paths>({
  baseUrl: BASE_URL,
  querySerializer: { object: { style: "form", explode: true } },
});

const { data: job, error, response } = await darkroom.POST("/v1/jobs", { body: BODY });
if (!job) throw new Error(`${response.status} ${error?.code}: ${error?.detail}`);
const warnings: readonly string[] = job.warnings ?? [];

const path = { id: job.id };
const { data: done } = await darkroom.GET("/v1/jobs/{id}", { params: { path, query: { wait: 30 } } });
const images = done?.outputs.map((output) => output.image_url);

const tags = { "tag.campaign": "coast" };
const { data: page } = await darkroom.GET("/v1/outputs", { params: { query: { q: `job:${job.id}`, tags } } });

type Row = components["schemas"]["BatchJob"];
const row: Row = { gateway: "apiframe", model: "imagen-4-fsat", prompt: "a kite" };
const { data: batch } = await darkroom.POST("/v1/jobs/batch", { body: { jobs: [row], dry_run: true } });
const refused = batch?.results[0]?.problem?.faults?.[0]?.field;

const found = page?.outputs[0]?.tags;
console.log(JSON.stringify({ status: done?.status, images, found, warnings, refused }));
"""


def run(folder: Path, *arguments: str, within_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, capture_output=True, text=True, timeout=within_s, check=False
    )


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the packages in it."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("Node.js with npm is not installed, so no TypeScript client was compiled")
    (tmp_path / "package.json").write_text('{"type": "module", "private": true}')
    plain = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund")
    done = run(tmp_path, "npm", "install", *plain, *PACKAGES)
    if done.returncode:
        pytest.skip(f"npm has no registry here, so no TypeScript client was compiled: {done.stderr[:200]}")
    return tmp_path


def test_the_readmes_request_compiles_and_runs(live: Live, project: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"-d '(\{.*?\})'", readme, re.DOTALL)
    assert found
    assert json.loads(found[1])["tags"], "it sends tags"
    (project / "openapi.json").write_text(json.dumps(document(live)))
    program = PROGRAM.replace("BODY", found[1]).replace("BASE_URL", json.dumps(live.url))
    (project / "app.ts").write_text(program)
    for command in (
        ("openapi-typescript", "openapi.json", "--output", "darkroom.d.ts"),
        ("tsc", *STRICT, *AS_A_MODULE, "app.ts"),
    ):
        done = run(project, f"node_modules/.bin/{command[0]}", *command[1:])
        assert done.returncode == 0, done.stdout + done.stderr
    done = run(project, "node", "app.js")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["status"], len(told["images"]), told["found"]) == ("archived", 1, {"campaign": "coast"})
    assert (told["warnings"], told["refused"]) == ([], "model")
