"""What the tests of the sandbox share."""

import hashlib
import hmac
from typing import Any

import httpx

from receiver.sandbox import SandboxConfig, SandboxServer
from receiver.sandbox.core.faults import Asked

FAST = SandboxConfig(latency_s=(0.0, 0.01), retry_delays_s=(0.01, 0.02), image_px=64)
PROMPT = "a red kite over a grey harbour"


def connect(sandbox: SandboxServer, **headers: str) -> httpx.Client:
    """A client of one sandbox; `connect(sandbox, x_api_key="afk_sandbox")`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Client(base_url=sandbox.url, headers=named, trust_env=False)


def apiframe_signature(body: bytes, api_key: str, form: str) -> str:
    digest = hashlib.sha256(api_key.encode())
    key = digest.digest() if form == "raw" else digest.hexdigest().encode()
    return f"sha256={hmac.new(key, body, hashlib.sha256).hexdigest()}"


def mend(sandbox: SandboxServer, job_id: str) -> None:
    """End the faults of an accepted job, so that its images are available from now on."""
    job = sandbox.sandbox.jobs.get(job_id)
    assert job is not None
    job.faults = Asked()


def credits_of(sandbox: SandboxServer, api_key: str) -> int:
    account = next(account for account in sandbox.config.accounts if account.key == api_key)
    return sandbox.sandbox.jobs.balance(account)


def ask(client: httpx.Client, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    body = {"model": "imagen-4-fast", "prompt": PROMPT, **fields}
    return client.post("/v2/images/generate", json=body, headers=headers)


def take(client: httpx.Client, headers: dict[str, str] | None = None, **fields: Any) -> str:
    answer = ask(client, headers, **fields)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["jobId"])


def ask_one(client: httpx.Client, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
    return client.post("/api/v1/images/generations", json={"prompt": PROMPT, **fields}, headers=headers)


def take_one(client: httpx.Client, headers: dict[str, str] | None = None, **fields: Any) -> str:
    answer = ask_one(client, headers, **fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["data"]["task_id"])
