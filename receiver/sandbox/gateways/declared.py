"""Stand in for a gateway that a TOML file declares: what the file says is read backwards.

The body of a submission is read by the places of its template, and reports are made by putting id, status
word and links where the file reads them, at the first alternative that is a plain path.
"""

import json
import re
import tomllib
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from receiver.sandbox.core import faults
from receiver.sandbox.core.callbacks import Body, Message
from receiver.sandbox.core.config import Account
from receiver.sandbox.core.jobs import Event, SandboxJob, State
from receiver.sandbox.core.lifecycle import Sandbox
from receiver.sandbox.core.signing import base64_mac, mac, secret_of, standard, whsec
from receiver.sandbox.core.stand_in import STATE_AFTER, Received, StandIn

MEANINGS: Mapping[State, str] = {
    "QUEUED": "running",
    "PROCESSING": "running",
    "COMPLETED": "succeeded",
    "FAILED": "failed",
    "CANCELLED": "failed",
}
VERBATIM = {"piapi": "x-webhook-secret", "apiframe-v1": "x-webhook-secret", "leonardo": "authorization"}
"""The schemes whose header is the secret itself."""
SIGNED = frozenset({*VERBATIM, "standard", "legnext", "kie"})

_HOLE = re.compile(r"\{([a-z_]+(?:\.[\w-]+)?)(?::[a-z.]+)?(?:=[^{}]*)?\}")
_PLAIN = re.compile(r"(?:from_json\(([\w.]+)\)\.)?([\w.]+)")
_EQUAL = re.compile(r"([\w.]+) == (?:`(.+)`|'(.*)')")


class NotReadBackwards(ValueError):
    """A file has something that no stand-in can be made of; the message says what."""


@dataclass(frozen=True)
class Declared(StandIn):
    """A gateway by its file. Use `declared`."""

    file: Mapping[str, Any]

    own_faults = faults.SIGNED
    model = "a-model"

    def routes(self) -> list[Route]:
        """Return its routes: those of the file, and one for a result that polls lead to."""
        submit, poll, cancel = self.file["submit"], self.file.get("poll"), self.file.get("cancel")
        found = [self.route(_route(submit["path"]), self.submit, submit.get("method", "POST"))]
        if poll:
            found.append(self.route(_route(poll["path"]), self._polled, poll.get("method", "GET")))
            found.append(self.route(f"/declared/{self.name}/{{id}}", self._result))
        if cancel:
            found.append(self.route(_route(cancel["path"]), self._cancelled, cancel.get("method", "GET")))
        return found

    def error(self, status: int, message: str) -> Body:
        """Build the body of an error response, with the code that the file reads."""
        body: Body = {"message": message, "error": {"message": message}}
        if code := self.file.get("errors", {}).get("code"):
            _put(body, code, status)
        return body

    async def read(self, received: Received) -> SandboxJob | Response:
        """Read a submission by the template of its body."""
        given = {name: _at(received.body, path) for path, name in _holes(self.file["submit"]["body"])}
        given |= {name: received.request.path_params.get(name, given.get(name)) for name in ("model",)}
        prompt, model = given.get("prompt"), given.get("model") or self.model
        if not isinstance(prompt, str) or not prompt:
            return self.invalid({"prompt": ["is required"]})
        count, seed = int(given.get("num_images") or 1), given.get("seed")
        ratio = str(given.get("aspect_ratio") or "1:1").replace("x", ":")
        size = received.shaped(ratio if re.fullmatch(r"[1-9]\d?:[1-9]\d?", ratio) else "1:1")
        return received.job(
            id=uuid.uuid4().hex,
            model=str(model),
            prompt=prompt,
            cost=count,
            input=received.body,
            specs=received.specs(prompt, str(model), size, seed=seed, count=count),
            callback_url=self._callback_url(received, given),
            seed=seed if isinstance(seed, int) else None,
            options={"secret": given.get("callback_secret")},
        )

    def accepted(self, job: SandboxJob) -> Response:
        """Build the response to a submission."""
        accept, body = self.file["accept"], dict[str, Any]()
        _put(body, accept["id"], job.id)
        if accept.get("ok"):
            self._say_ok(body, accept["ok"])
        return JSONResponse(body, (self.file["submit"].get("expect") or [200])[0])

    def polled(self, sandbox: Sandbox, job: SandboxJob) -> Body:  # noqa: ARG002
        """Build the response to a poll, which may lead to the result instead."""
        follow = self.file["poll"].get("follow")
        body = self._told(job, job.status, [] if follow else job.named(), self.file["read"].get("poll", {}))
        if follow:
            _put(body, follow, f"{job.base_url}/declared/{self.name}/{job.id}")
        return body

    def callback(self, job: SandboxJob, event: Event, links: list[Any]) -> Body:
        """Build a callback."""
        return self._told(job, STATE_AFTER[event], links, {})

    def settings(self, account: Account, url: str) -> dict[str, str]:  # noqa: ARG002
        """Return the secret of its callbacks, where the file names one."""
        named = self.file.get("signature", {}).get("secret")
        return {"webhook_secrets": whsec(account.key)} if named else {}

    def key(self, job: SandboxJob) -> bytes | None:
        """Return what it signs with: the secret that came with the submission, or that of the account."""
        signature = self.file.get("signature")
        if signature is None:
            return None
        if told := job.options["secret"]:
            return str(told).encode()
        is_standard = signature["scheme"] == "standard"
        return secret_of(job.account.key) if is_standard else whsec(job.account.key).encode()

    def sign(self, key: bytes, message: Message) -> dict[str, str]:
        """Return the headers of the file's scheme."""
        scheme = self.file["signature"]["scheme"]
        if scheme in VERBATIM:
            return {VERBATIM[scheme]: ("Bearer " if scheme == "leonardo" else "") + key.decode()}
        if scheme == "kie":
            signature = base64_mac(key, message.job.id, message.sent_at)
            return {"x-webhook-signature": signature, "x-webhook-timestamp": str(message.sent_at)}
        if scheme == "legnext":
            signature = mac(key, message.sent_at, message.body).hex()
            return {"x-legnext-signature": signature, "x-legnext-timestamp": str(message.sent_at)}
        return standard(
            message.id, message.sent_at, f"v1,{base64_mac(key, message.id, message.sent_at, message.body)}"
        )

    def _callback_url(self, received: Received, given: Mapping[str, Any]) -> str | None:
        way, _, name = self.file["submit"].get("callback", "body").partition(":")
        request = received.request
        found = {
            "body": given.get("callback_url"),
            "query": request.query_params.get(name),
            "header": request.headers.get(name),
        }
        return found.get(way)

    def _told(self, job: SandboxJob, state: State, links: list[Any], changed: Mapping[str, str]) -> Body:
        read, inner = {**self.file["read"], **changed}, dict[str, Any]()
        _put(inner, read["id"], job.id)
        if place := read.get("status"):
            _put(inner, place, self._word(MEANINGS[state]))
        if state == "COMPLETED":
            _put(inner, read["images"], links)
            for name in ("seed", "seed_echo"):
                if job.seed is not None and read.get(name):
                    _put(inner, read[name], job.seed)
        elif state in ("FAILED", "CANCELLED") and read.get("error"):
            _put(inner, read["error"], job.error or "It was cancelled")
        if not read.get("unwrap"):
            return inner
        outer = dict[str, Any]()
        _put(outer, read["unwrap"], inner)
        if ok := self.file["accept"].get("ok"):
            self._say_ok(outer, ok)
        return outer

    def _word(self, meaning: str) -> str:
        words = self.file.get("status", {}).get(meaning)
        return str(words[0]) if words else meaning

    def _say_ok(self, body: Body, expression: str) -> None:
        if said := _EQUAL.fullmatch(expression):
            _put(body, said[1], json.loads(said[2]) if said[2] else said[3])

    async def _polled(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        return self.told(self._id(request, "poll"), sandbox, account)

    async def _result(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        job = self.find(request.path_params["id"], sandbox, account)
        return (
            job if isinstance(job, Response) else JSONResponse(self._told(job, job.status, job.named(), {}))
        )

    async def _cancelled(self, request: Request, sandbox: Sandbox, account: Account) -> Response:
        job = self.find(self._id(request, "cancel"), sandbox, account)
        if isinstance(job, SandboxJob):
            sandbox.cancel(job)
            return JSONResponse(self.polled(sandbox, job))
        return job

    def _id(self, request: Request, call: str) -> str:
        """Return the id in a request, which may be in the query."""
        _, _, query = self.file[call]["path"].partition("?")
        name = next((part.partition("=")[0] for part in query.split("&") if "{id}" in part), "")
        return str(request.path_params.get("id") or request.query_params.get(name) or "")


def declared(path: Path) -> Declared:
    """Return a stand-in for the gateway of a file, which is one that Darkroom can use.

    Raises NotReadBackwards for what no stand-in can be made of.
    """
    file = tomllib.loads(path.read_text("utf-8"))
    read = {**file["read"], **file["read"].get("poll", {})}
    for place in (file["accept"]["id"], read["id"], read["images"]):
        _plain(place)
    scheme = file.get("signature", {}).get("scheme", "standard")
    if scheme not in SIGNED:
        raise NotReadBackwards(f"signature.scheme: the sandbox does not sign by {scheme}")
    auth = file.get("auth", {"style": "bearer"})
    if auth["style"] == "query":
        raise NotReadBackwards("auth.style: the sandbox reads no API key from the query")
    usual = "Bearer " if auth["style"] == "bearer" else ""
    named = {
        "name": file["name"],
        "key_prefix": file["name"],
        "below": f"/{file['submit']['path'].split('/')[1]}",
        "key_header": auth.get("name", "Authorization").lower(),
        "key_scheme": auth.get("prefix") or usual,
    }
    kind: type[Declared] = type("DeclaredStandIn", (Declared,), named)
    return kind(file)


def _route(path: str) -> str:
    """Return a route for a path of the file: a model may have slashes."""
    plain = path.partition("?")[0]
    return re.sub(r"\{model[.01]*\}", "{model:path}", plain)


def _holes(template: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and the name of each hole in a template."""
    for key, value in template.items():
        if isinstance(value, Mapping):
            yield from _holes(value, f"{before}{key}.")
        elif isinstance(value, str) and (hole := _HOLE.fullmatch(value)):
            yield f"{before}{key}", hole[1]


def _plain(expression: str) -> re.Match[str]:
    """Return the parts of the first alternative that is a path. Raises NotReadBackwards."""
    for part in expression.split("||"):
        if found := _PLAIN.fullmatch(part.strip()):
            return found
    raise NotReadBackwards(f"{expression}: none of its alternatives is a plain place")


def _put(body: Body, expression: str, value: object) -> None:
    """Put a value where an expression finds it, also into JSON in a text."""
    text, path = _plain(expression).groups()
    if text:
        inside = json.loads(_at(body, text) or "{}")
        _put(inside, path, value)
        path, value = text, json.dumps(inside)
    *outer, last = path.split(".")
    for step in outer:
        body = body.setdefault(step, {})
    body[last] = value


def _at(body: Any, path: str) -> Any:
    for step in path.split("."):
        body = body.get(step) if isinstance(body, dict) else None
    return body
