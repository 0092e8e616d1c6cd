"""Every fault that the sandbox has, seen from outside."""

import base64
import gzip
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from receiver.sandbox import SandboxServer
from receiver.sandbox.core.faults import KINDS
from receiver.sandbox.gateways import STAND_INS
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import FAST, apiframe_signature, ask, ask_one, connect, take, take_one

NUMBERS = itertools.count()


def spoil(client: httpx.Client, fault: str, to: str | None = None, /, **options: Any) -> str:
    """Submit to Apiframe with a fault; each time another prompt, so that no two submissions are alike."""
    callback: dict[str, Any] = {} if to is None else {"webhookUrl": to}
    wish = {"sandbox": {"fault": fault, **options}}
    return take(client, None, prompt=f"number {next(NUMBERS)}", imagenParams=wish, **callback)


def get(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def broken(link: str, error: type[httpx.HTTPError]) -> tuple[int, bytes]:
    """Download what breaks off, and return the size that was announced and the bytes that came."""
    got: list[bytes] = []
    with httpx.stream("GET", link, trust_env=False, timeout=0.5) as answer:
        with pytest.raises(error):
            got.extend(answer.iter_raw())
        return int(answer.headers["content-length"]), b"".join(got)


def test_a_fault_may_be_asked_for_in_a_header(
    sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver
) -> None:
    header = {"x-sandbox-fault": "failed + no_callback; message=too dark; delay_s=0.5"}
    job = sandbox.wait(take(client, header, webhookUrl=receiver.url))
    assert (job.fault, job.error, job.callbacks) == ("failed+no_callback", "too dark", ())
    assert "sandbox" not in job.input


def test_no_callback(sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver) -> None:
    job = sandbox.wait(spoil(client, "no_callback", receiver.url))
    assert (job.status, job.callbacks, job.webhook_status) == ("COMPLETED", (), "pending")


def test_late_jobs_are_done_before_the_callback(receiver: CallbackReceiver) -> None:
    with SandboxServer(FAST) as sandbox, connect(sandbox, x_api_key="afk_sandbox") as client:
        job_id = spoil(client, "late", receiver.url, delay_s=600)
        sandbox.wait(job_id, callbacks=False)
        job = client.get(f"/v2/jobs/{job_id}").json()
    assert (job["status"], job["webhookStatus"]) == ("COMPLETED", "pending")
    assert receiver.none_left()


def test_duplicates_in_turn(sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver) -> None:
    sandbox.wait(spoil(client, "duplicate", receiver.url, times=3))
    assert len({receiver.next().body for _ in range(3)}) == 1
    assert receiver.none_left()


def test_duplicates_can_come_in_the_same_instant(sandbox: SandboxServer, client: httpx.Client) -> None:
    with CallbackReceiver(together=5) as receiver:
        job = sandbox.wait(spoil(client, "duplicate", receiver.url, times=5, at_once=True))
    assert [call.status for call in job.callbacks] == [200] * 5


def test_out_of_order_progress(
    sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver
) -> None:
    sandbox.wait(spoil(client, "out_of_order", receiver.url))
    bodies = [receiver.next().json for _ in range(2)]
    assert [body["status"] for body in bodies] == ["COMPLETED", "PROCESSING"]
    assert bodies[1]["progress"] < 100


@pytest.mark.parametrize("fault", ["early", "slow_answer"])
def test_early_callbacks_come_before_the_answer(
    client: httpx.Client, one: httpx.Client, receiver: CallbackReceiver, fault: str
) -> None:
    job_id = spoil(client, fault, receiver.url, delay_s=0.3)
    assert receiver.requests.get_nowait().json["jobId"] == job_id
    task_id = take_one(one, callback_url=receiver.url, sandbox={"fault": fault, "delay_s": 0.3})
    assert receiver.requests.get_nowait().json["data"]["task_id"] == task_id


def test_wrong_signature_and_unsigned(client: httpx.Client, receiver: CallbackReceiver) -> None:
    spoil(client, "wrong_signature", receiver.url)
    call = receiver.next()
    signature = call.headers["x-webhook-signature"]
    assert len(signature) == len("sha256=") + 64
    assert signature not in {apiframe_signature(call.body, "afk_sandbox", form) for form in ("raw", "hex")}
    spoil(client, "unsigned", receiver.url)
    assert "x-webhook-signature" not in receiver.next().headers


def test_malformed_callback(client: httpx.Client, receiver: CallbackReceiver) -> None:
    spoil(client, "malformed_callback", receiver.url)
    call = receiver.next()
    assert call.headers["x-webhook-signature"] == apiframe_signature(call.body, "afk_sandbox", "raw")
    with pytest.raises(json.JSONDecodeError):
        _ = call.json


@pytest.mark.parametrize(("options", "least"), [({}, 5_000_000), ({"bytes": 9000}, 9000)])
def test_big_callback(
    client: httpx.Client, receiver: CallbackReceiver, options: dict[str, int], least: int
) -> None:
    spoil(client, "big_callback", receiver.url, **options)
    call = receiver.next()
    assert least <= len(call.body) < least + 1000
    assert call.json["status"] == "COMPLETED"


def test_evil_url_in_callbacks(
    sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver
) -> None:
    job_id = spoil(client, "evil_url", receiver.url, url="http://169.254.169.254/x.png")
    assert receiver.next().json["result"] == {"images": ["http://169.254.169.254/x.png"]}
    assert client.get(f"/v2/jobs/{job_id}").json()["result"] == {"images": list(sandbox.job(job_id).images)}


def test_failed_in_200(sandbox: SandboxServer, one: httpx.Client) -> None:
    before = len(sandbox.jobs())
    answer = ask_one(one, sandbox={"fault": "failed_in_200", "message": "busy"})
    assert answer.status_code == 200
    assert answer.json() == {"code": 500, "message": "busy", "data": None}
    assert len(sandbox.jobs()) == before


def test_refused(client: httpx.Client, one: httpx.Client) -> None:
    assert ask(client, {"x-sandbox-fault": "refused"}).status_code == 400
    assert ask_one(one, sandbox="refused").json()["code"] == 400


@pytest.mark.parametrize(
    ("fault", "status"), [("rate_limited", 429), ("unavailable", 503), ("server_error", 500)]
)
def test_a_submission_is_turned_away_some_times(
    sandbox: SandboxServer, client: httpx.Client, one: httpx.Client, fault: str, status: int
) -> None:
    before = len(sandbox.jobs())
    wish = {"fault": fault, "times": 2, "retry_after_s": 7}
    headers = {"idempotency-key": fault}
    answers = [ask(client, headers, imagenParams={"sandbox": wish}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 202]
    assert answers[0].headers.get("retry-after") == ("7" if status == 429 else None)
    assert [ask_one(one, sandbox=wish).json()["code"] for _ in range(3)] == [status, status, 200]
    assert len(sandbox.jobs()) == before + 2


def test_lost_answer_takes_the_job_all_the_same(sandbox: SandboxServer, client: httpx.Client) -> None:
    headers = {"idempotency-key": "lost", "x-sandbox-fault": "lost_answer"}
    with pytest.raises(httpx.RemoteProtocolError):
        ask(client, headers)
    job_id = take(client, headers)
    assert [job.id for job in sandbox.jobs() if job.idempotency_key == "lost"] == [job_id]


def test_lost_answers_without_a_key_make_two_jobs(sandbox: SandboxServer, one: httpx.Client) -> None:
    before = len(sandbox.jobs())
    with pytest.raises(httpx.RemoteProtocolError):
        ask_one(one, sandbox="lost_answer")
    take_one(one, sandbox="lost_answer")
    assert len(sandbox.jobs()) == before + 2


def test_slow_image_is_whole_in_the_end(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "slow_image", delay_s=0.2)
    (link,) = sandbox.wait(job_id).images
    with httpx.stream("GET", link, trust_env=False) as answer:
        parts = list(answer.iter_raw())
    assert len(parts) > 5
    assert b"".join(parts) == sandbox.image_bytes(job_id)


def test_wrong_type(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "wrong_type")
    image = get(sandbox.wait(job_id).images[0])
    assert image.headers["content-type"].startswith("text/plain")
    assert image.content == sandbox.image_bytes(job_id)


def test_html_image(sandbox: SandboxServer, client: httpx.Client) -> None:
    image = get(sandbox.wait(spoil(client, "html_image")).images[0])
    assert image.headers["content-type"] == "image/png"
    assert image.content.startswith(b"<!doctype html>")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_polls_renew_expired_links(sandbox: SandboxServer, client: httpx.Client, status: int) -> None:
    job_id = spoil(client, "expired_link", status=status)
    (first,) = sandbox.wait(job_id).images
    assert client.get(f"/v2/jobs/{job_id}").json()["result"] == {"images": [first]}
    assert get(first).status_code == status
    (second,) = client.get(f"/v2/jobs/{job_id}").json()["result"]["images"]
    assert second != first
    assert get(second).content == sandbox.image_bytes(job_id)
    assert get(first).status_code == status


@pytest.mark.parametrize("options", [{"forever": True}, {"times": 2}])
def test_expired_links_may_stay_dead(sandbox: SandboxServer, one: httpx.Client, options: Any) -> None:
    task_id = take_one(one, sandbox={"fault": "expired_link", **options})
    sandbox.wait(task_id)
    seen = []
    for _ in range(3):
        (link,) = one.get(f"/api/v1/tasks/{task_id}").json()["data"]["output"]["image_urls"]
        seen.append(get(link).status_code)
    assert seen == [404, 404, 404 if "forever" in options else 200]


def test_partial_images(sandbox: SandboxServer, one: httpx.Client) -> None:
    links = sandbox.wait(take_one(one, num_images=3, sandbox="partial_images")).images
    assert [get(link).status_code for link in links] == [200, 200, 404]


def test_withheld_image(sandbox: SandboxServer, one: httpx.Client) -> None:
    wish = {"fault": "withheld_image", "message": "blocked"}
    task_id = take_one(one, num_images=3, sandbox=wish)
    links = sandbox.wait(task_id).images
    output = one.get(f"/api/v1/tasks/{task_id}").json()["data"]["output"]
    assert output == {"image_urls": [links[0], None, links[2]], "reasons": [None, "blocked", None]}


@pytest.mark.parametrize("form", ["png", "jpg"])
def test_other_bytes_of_the_same_picture(sandbox: SandboxServer, client: httpx.Client, form: str) -> None:
    wish = {"sandbox": "other_bytes", "output_format": form}
    job_id = take(client, None, prompt=f"number {next(NUMBERS)}", imagenParams=wish)
    (link,) = sandbox.wait(job_id).images
    first, second, third = (get(link).content for _ in range(3))
    assert first == sandbox.image_bytes(job_id)
    assert second == third != first
    pixels = [Image.open(io.BytesIO(data)).tobytes() for data in (first, second)]
    assert pixels[0] == pixels[1]


def test_single_use_link(sandbox: SandboxServer, client: httpx.Client) -> None:
    (link,) = sandbox.wait(spoil(client, "single_use_link", status=410)).images
    assert [get(link).status_code for _ in range(3)] == [200, 410, 410]


@pytest.mark.parametrize("size", [1, 30_000, 30_001, 1_048_576, 3_333_333, 2 * 1_048_600])
def test_bytes_gives_images_of_that_size(sandbox: SandboxServer, client: httpx.Client, size: int) -> None:
    job_id = spoil(client, "bytes", bytes=size)
    image = get(sandbox.wait(job_id).images[0])
    plain = len(sandbox.image_bytes(spoil(client, "no_callback")))
    assert len(image.content) == (size if size > plain * 2 else len(image.content))
    assert image.headers["content-length"] == str(len(image.content))
    assert image.content == sandbox.image_bytes(job_id)
    assert sandbox.image_bytes(job_id) == image.content
    picture = Image.open(io.BytesIO(image.content), formats=["PNG"])
    picture.load()
    assert picture.size == (64, 64)


def test_a_stopped_sandbox_ends_what_it_was_doing(receiver: CallbackReceiver) -> None:
    slow = replace(FAST, latency_s=(60, 60))
    with SandboxServer(slow) as sandbox, connect(sandbox, x_api_key="afk_sandbox") as client:
        job_id = spoil(client, "late", receiver.url)
    assert sandbox.wait(job_id).over
    assert receiver.none_left()


def link_of(sandbox: SandboxServer, job_id: str) -> str:
    (link,) = sandbox.wait(job_id).images
    return link


def test_cut_answer_takes_the_job(sandbox: SandboxServer, client: httpx.Client, one: httpx.Client) -> None:
    headers = {"idempotency-key": "cut", "x-sandbox-fault": "cut_answer"}
    with client.stream("POST", "/v2/images/generate", headers=headers, json={"model": "x"}) as refused:
        assert refused.status_code == 400
    body = {"model": "imagen-4-fast", "prompt": "cut"}
    with client.stream("POST", "/v2/images/generate", headers=headers, json=body) as answer:
        assert answer.status_code == 202
        with pytest.raises(httpx.RemoteProtocolError):
            answer.read()
    job_id = take(client, headers, prompt="cut")
    assert [job.id for job in sandbox.jobs() if job.idempotency_key == "cut"] == [job_id]
    before = len(sandbox.jobs())
    with pytest.raises(httpx.RemoteProtocolError):
        ask_one(one, sandbox="cut_answer")
    assert len(sandbox.jobs()) == before + 1


@pytest.mark.parametrize(("options", "status"), [({}, 500), ({"status": 429, "retry_after_s": 7}, 429)])
def test_poll_error(
    sandbox: SandboxServer, client: httpx.Client, one: httpx.Client, options: dict[str, int], status: int
) -> None:
    job_id = spoil(client, "poll_error", times=2, **options)
    answers = [client.get(f"/v2/jobs/{job_id}") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [status, status, 200]
    assert answers[0].headers.get("retry-after") == ("7" if status == 429 else None)
    task_id = take_one(one, sandbox={"fault": "poll_error", **options})
    assert [one.get(f"/api/v1/tasks/{task_id}").status_code for _ in range(2)] == [status, 200]


def test_changes_mind(sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver) -> None:
    job_id = spoil(client, "changes_mind", receiver.url, delay_s=0.05, message="on second thoughts")
    assert [receiver.next().json["status"] for _ in range(2)] == ["COMPLETED", "FAILED"]
    job = sandbox.wait(job_id)
    assert (job.status, job.error, job.cost) == ("FAILED", "on second thoughts", 0)
    assert client.get(f"/v2/jobs/{job_id}").json()["status"] == "FAILED"
    assert receiver.none_left()


def test_changes_mind_again(sandbox: SandboxServer, one: httpx.Client, receiver: CallbackReceiver) -> None:
    wish = {"fault": "failed+changes_mind", "delay_s": 0.05}
    task_id = take_one(one, callback_url=receiver.url, sandbox=wish)
    assert [receiver.next().json["data"]["status"] for _ in range(2)] == ["failed", "completed"]
    link = link_of(sandbox, task_id)
    assert one.get(f"/api/v1/tasks/{task_id}").json()["data"]["output"]["image_urls"] == [link]
    assert get(link).content == sandbox.image_bytes(task_id)


@pytest.mark.parametrize(
    ("fault", "options", "bent"),
    [
        ("odd_link", {"url": "//x.example/a"}, {"result": {"images": ["//x.example/a"]}}),
        ("no_images", {}, {"result": {"images": []}}),
        ("odd_place", {}, {"result": {"images": []}, "media": {"files": [{"href": "LINK"}]}}),
        ("odd_status", {"message": "POLISHED"}, {"status": "POLISHED"}),
    ],
)
def test_odd_answers_are_the_same_by_callback_and_poll(
    sandbox: SandboxServer,
    client: httpx.Client,
    receiver: CallbackReceiver,
    fault: str,
    options: dict[str, Any],
    bent: dict[str, Any],
) -> None:
    job_id = spoil(client, fault, receiver.url, **options)
    called, polled = receiver.next().json, client.get(f"/v2/jobs/{job_id}").json()
    expected = json.loads(json.dumps(bent).replace("LINK", link_of(sandbox, job_id)))
    for body in (called, polled):
        assert {key: body[key] for key in expected} == expected


def test_inline_image(sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver) -> None:
    job_id = spoil(client, "inline_image", receiver.url)
    called, polled = receiver.next().json, client.get(f"/v2/jobs/{job_id}").json()
    for body in (called, polled):
        (uri,) = body["result"]["images"]
        assert base64.b64decode(uri.partition("base64,")[2]) == sandbox.image_bytes(job_id)


def test_inline_answer(sandbox: SandboxServer, client: httpx.Client, receiver: CallbackReceiver) -> None:
    fault = {"imagenParams": {"sandbox": "inline_answer"}, "webhookUrl": receiver.url}
    body = {"model": "imagen-4", "prompt": "a red square", "webhookEvents": ["completed"], **fault}
    answer = client.post("/v2/images/generate", json=body).json()
    (uri,) = answer["result"]["images"]
    assert base64.b64decode(uri.partition("base64,")[2]) == sandbox.image_bytes(answer["jobId"])
    assert sandbox.wait(answer["jobId"]).callbacks == ()


def test_odd_poll(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "odd_poll", times=1)
    sandbox.wait(job_id)
    answers = [client.get(f"/v2/jobs/{job_id}") for _ in range(2)]
    assert [answer.headers["content-type"].partition(";")[0] for answer in answers] == [
        "text/html",
        "application/json",
    ]
    assert answers[0].status_code == 200


@pytest.mark.parametrize(
    ("fault", "error"), [("truncated_image", httpx.RemoteProtocolError), ("stalled_image", httpx.ReadTimeout)]
)
def test_half_an_image(
    sandbox: SandboxServer, client: httpx.Client, fault: str, error: type[httpx.HTTPError]
) -> None:
    job_id = spoil(client, fault)
    link, whole = link_of(sandbox, job_id), sandbox.image_bytes(job_id)
    assert broken(link, error) == (len(whole), whole[: len(whole) // 2])


def test_gzip_image(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "gzip_image")
    with httpx.stream("GET", link_of(sandbox, job_id), trust_env=False) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join(answer.iter_raw())) == sandbox.image_bytes(job_id)


def test_unended_image(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "unended_image")
    assert get(link_of(sandbox, job_id)).content == sandbox.image_bytes(job_id)[:-2]


def test_reset_image(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "reset_image", bytes=100_000)
    whole = sandbox.image_bytes(sandbox.wait(job_id).id)
    size, got = broken(link_of(sandbox, job_id), httpx.ReadError)
    assert size == len(whole)
    assert whole.startswith(got)
    assert len(got) <= len(whole) // 2


def test_a_sandbox_stops_although_an_image_is_stalled() -> None:
    with SandboxServer(FAST) as sandbox, connect(sandbox, x_api_key="afk_sandbox") as client:
        link = link_of(sandbox, spoil(client, "stalled_image"))
        with httpx.Client(trust_env=False) as other, other.stream("GET", link) as answer:
            assert answer.status_code == 200
            sandbox.stop()


def test_wrong_length(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "wrong_length", off_by=-10)
    link, whole = link_of(sandbox, job_id), sandbox.image_bytes(job_id)
    short = get(link)
    assert (short.headers["content-length"], short.content) == (str(len(whole) - 10), whole[:-10])
    job_id = spoil(client, "wrong_length", off_by=10)
    link, whole = link_of(sandbox, job_id), sandbox.image_bytes(job_id)
    assert broken(link, httpx.RemoteProtocolError) == (len(whole) + 10, whole)


def test_redirect_image(sandbox: SandboxServer, client: httpx.Client) -> None:
    answer = get(link_of(sandbox, spoil(client, "redirect_image")))
    assert (answer.status_code, answer.headers["location"]) == (
        302, "http://169.254.169.254/latest/meta-data/",
    )  # fmt: skip
    answer = get(link_of(sandbox, spoil(client, "redirect_image", url="http://127.0.0.1:1/x")))
    assert answer.headers["location"] == "http://127.0.0.1:1/x"


def test_image_faults_may_pass(sandbox: SandboxServer, one: httpx.Client) -> None:
    wish = {"fault": "html_image", "times": 2}
    links = sandbox.wait(take_one(one, num_images=2, sandbox=wish)).images
    seen = [get(link).content.startswith(b"<!doctype") for _ in range(3) for link in links]
    assert seen == [True] * 4 + [False] * 2


def test_every_fault_is_tested() -> None:
    text = "".join(Path(__file__).with_name(f"test_{name}.py").read_text() for name in ("faults", "gateways"))
    kinds = [*KINDS, *(kind for gateway in STAND_INS for kind in gateway.own_faults)]
    untested = [kind for kind in kinds if not re.search(rf'["+]{kind}["+; ]', text)]
    assert untested == []
