"""Gateways of files from end to end: the same file is the adapter's and the stand-in's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.demo.seaweedfs import EmbeddedS3
from receiver.gateways.declared import SHIPPED
from receiver.sandbox import SandboxServer
from receiver.sandbox.gateways.declared import NotReadBackwards, declared
from tests.support.live import QUICK, Live, started

KINDS = {path.stem: path for path in SHIPPED.glob("*.toml")}
"""By name."""
NOT_BACKWARDS = {"comfydeploy", "runcomfy"}
"""Whose places are no plain paths."""
SIGNED = {"kie": "origin", "standard": "valid", "legnext": "valid", "piapi": "origin"}
NAMES = sorted(KINDS.keys() - NOT_BACKWARDS)
MADE_UP = """
name = "atelier"
title = "Atelier"
docs = "https://atelier.example/docs"
base_url = "https://api.atelier.example"
api_key = "env:ATELIER_KEY"
[auth]
style = "header"
name = "X-Atelier"
prefix = "Key "
[submit]
path = "/v1/{model}/draw"
callback = "header:X-Tell"
expect = [202]
[submit.body.work]
text = "{prompt}"
number = "{seed:int}"
[accept]
ok = "taken == `true`"
id = "ticket.id"
[poll]
path = "/v1/tickets?number={id}"
follow = "ticket.result_at"
[cancel]
method = "POST"
path = "/v1/tickets/{id}/stop"
[read]
unwrap = "ticket"
id = "id"
status = "phase"
images = "from_json(made).pictures"
seed = "from_json(made).number"
error = "why"
[status]
running = ["wet"]
succeeded = ["dry"]
failed = ["torn"]
[signature]
scheme = "standard"
secret = "env:ATELIER_SECRET"
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of them, and one of a gateway that there is not."""
    folder = tmp_path_factory.mktemp("gateways")
    for name in NAMES:
        (folder / f"{name}.toml").write_text(KINDS[name].read_text())
    (folder / "atelier.toml").write_text(MADE_UP)
    salon = MADE_UP.replace("atelier", "salon").replace('scheme = "standard"', 'scheme = "kie"')
    (folder / "salon.toml").write_text(salon.replace("/v1/", "/v3/"))
    return folder


@pytest.fixture(scope="module", params=[True, False], ids=["told", "asking"])
def live(
    request: pytest.FixtureRequest,
    files: Path,
    s3_server: EmbeddedS3,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    stand_ins = [declared(path) for path in sorted(files.glob("*.toml"))]
    folder = tmp_path_factory.mktemp("service")
    with SandboxServer(QUICK, gateways=stand_ins) as sandbox:
        more = {"gateways": sandbox.settings(), "gateways_dir": files, "callbacks": request.param}
        with started(s3_server, folder, sandbox=sandbox, **more) as running:
            yield running


@pytest.mark.parametrize(
    "name",
    [
        "atelier",
        "salon",
        *(pytest.param(name, marks=pytest.mark.exhaustive) for name in NAMES),
    ],
)
def test_a_declared_gateway_makes_an_image(live: Live, name: str) -> None:
    seed = {"seed": "7"} if name in {"atelier", "salon", "piapi", "novita"} else {}
    job = live.make({"gateway": name, "model": "a-model", "prompt": "a red kite", **seed})
    assert job["status"] == "archived", job
    (output,) = live.outputs(job["id"])
    data = live.sandbox.image_bytes(job["gateway_job_id"])
    assert live.http.get(f"/v1/outputs/{output['id']}/image?stream=1").content == data
    evidence = live.bucket.archive.read_record(live.job(job["id"]))["evidence"]
    assert evidence["found_by"] == ("callback" if live.settings.public_url else "poll_only")
    signing = live.settings.gateways.known[name].table.signing
    proof = SIGNED[signing.scheme] if signing else "unsupported"
    assert {one["signature"] for one in evidence["deliveries"]} <= {proof}
    if name == "atelier":
        assert live.job(job["id"]).result.seed == "7"


def test_what_cannot_be_read_backwards_is_said() -> None:
    for name in NOT_BACKWARDS:
        with pytest.raises(NotReadBackwards, match="none of its alternatives is a plain place"):
            declared(KINDS[name])
