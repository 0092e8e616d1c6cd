"""The sandbox's faults that break answers, images, or a promise. The others are in `test_faults`."""

import httpx
import pytest

from receiver.sandbox import SandboxServer
from tests.sandbox.test_faults import broken, get, spoil
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import FAST, ask_one, connect, take, take_one


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


def test_reset_image(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "reset_image", bytes=100_000)
    whole = sandbox.image_bytes(sandbox.wait(job_id).id)
    size, got = broken(link_of(sandbox, job_id), httpx.ReadError)
    assert size == len(whole)
    assert whole.startswith(got)
    assert len(got) <= len(whole) // 2


def test_stalled_image(sandbox: SandboxServer, client: httpx.Client) -> None:
    job_id = spoil(client, "stalled_image")
    link, whole = link_of(sandbox, job_id), sandbox.image_bytes(job_id)
    assert broken(link, httpx.ReadTimeout) == (len(whole), whole[: len(whole) // 2])


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
