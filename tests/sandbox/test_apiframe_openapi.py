"""What the sandbox's Apiframe takes and answers, held to the schemas that Apiframe publishes.

`samples/openapi/apiframe.json` is what https://api.apiframe.ai/v2/openapi.json says of these routes, without
its prose.
"""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from receiver.sandbox import SandboxServer
from receiver.sandbox.gateways.apiframe import FROM_IMAGES
from tests.support.recorder import CallbackReceiver
from tests.support.sandbox import credits_of

OPENAPI = json.loads((Path(__file__).parents[1] / "samples" / "openapi" / "apiframe.json").read_text())
SCHEMAS = OPENAPI["components"]["schemas"]
EDITS = sorted(FROM_IMAGES)
GENERATE = {"model": "imagen-4-fast", "prompt": "a red kite"}


def validator(schema: dict[str, Any]) -> jsonschema_rs.Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": OPENAPI["components"]})


def asked(path: str) -> dict[str, Any]:
    """The schema of a request's body."""
    content = OPENAPI["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    return dict(SCHEMAS[content["schema"]["$ref"].rpartition("/")[2]])


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What a schema allows, as far as these schemas go."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    for one_of in ("oneOf", "anyOf"):
        if one_of in schema:
            return st.one_of(*(fitting(each) for each in schema[one_of]))
    least, most = schema.get("minimum"), schema.get("maximum")
    if schema["type"] == "object":
        fields = {name: fitting(each) for name, each in schema["properties"].items()}
        needed = {name: fields.pop(name) for name in schema["required"]}
        return st.fixed_dictionaries(needed, optional=fields)
    if schema["type"] == "array":
        return st.lists(fitting(schema["items"]), min_size=1, max_size=3)
    return {
        "string": st.just("text"),
        "boolean": st.booleans(),
        "integer": st.integers(least, most),
        "number": st.floats(least, most),
    }[schema["type"]]


def check(answer: httpx.Response, path: str) -> Any:
    """Return the body of an answer that is as the schema says."""
    told = OPENAPI["paths"][path][answer.request.method.lower()]["responses"][str(answer.status_code)]
    validator(told["content"]["application/json"]["schema"]).validate(answer.json())
    return answer.json()


@pytest.fixture(scope="module")
def image(client: httpx.Client) -> str:
    """The URL of an image of 60 x 40 pixels that was uploaded."""
    file = io.BytesIO()
    Image.new("RGB", (60, 40), "teal").save(file, "PNG")
    told = check(client.post("/v2/uploads", files={"file": ("x.gif", file.getvalue())}), "/v2/uploads")
    assert (told["contentType"], told["byteSize"]) == ("image/png", len(file.getvalue()))
    assert httpx.get(told["url"], trust_env=False).content == file.getvalue()
    return str(told["url"])


@pytest.mark.parametrize("path", ["/v2/jobs", "/v2/me"])
@pytest.mark.parametrize("key", ["afk_sandbox", "afk_unknown", "afk_inactive"])
def test_readings_are_as_the_schema_says(client: httpx.Client, path: str, key: str) -> None:
    check(client.get(path, headers={"x-api-key": key}), path)


@pytest.mark.parametrize("path", ["/v2/images/generate", *EDITS])
@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("afk_unknown", ""),
        ("afk_inactive", ""),
        ("afk_sandbox", "refused"),
        ("afk_sandbox", "rate_limited"),
        ("afk_sandbox", "unavailable"),
    ],
)
def test_refusals_are_as_the_schema_says(client: httpx.Client, path: str, key: str, fault: str) -> None:
    answer = client.post(path, json=GENERATE, headers={"x-api-key": key, "x-sandbox-fault": fault})
    assert answer.status_code >= 400
    check(answer, path)


def test_credits_are_told(sandbox: SandboxServer, client: httpx.Client) -> None:
    poor = {"x-api-key": "afk_poor"}
    assert check(client.get("/v2/me", headers=poor), "/v2/me")["team"]["credits"] == 5
    client.post("/v2/images/generate", json=GENERATE, headers=poor)
    assert check(client.get("/v2/me", headers=poor), "/v2/me")["team"]["credits"] == 1
    assert credits_of(sandbox, "afk_poor") == 1
    answer = client.post("/v2/images/generate", json=GENERATE, headers=poor)
    assert check(answer, "/v2/images/generate")["creditsAvailable"] == 1


@pytest.mark.parametrize(
    ("path", "model", "params", "size", "kind"),
    [
        ("edit", "flux-fill-pro", {"prompt": "a hat", "mode": "inpaint", "mask": "IMAGE"}, (60, 40), "JPEG"),
        ("upscale", "topaz-image-upscale", {"upscale_factor": 4}, (240, 160), "JPEG"),
        ("upscale", "clarity-upscale", {"scale_factor": 8, "output_format": "jpg"}, (480, 320), "JPEG"),
        ("background-remove", "bria-bg-remove", {}, (60, 40), "PNG"),
        ("background-remove", "851-bg-remove", {"format": "jpg"}, (60, 40), "JPEG"),
    ],
)
def test_images_are_made_of_images(
    sandbox: SandboxServer,
    client: httpx.Client,
    receiver: CallbackReceiver,
    image: str,
    path: str,
    model: str,
    params: dict[str, Any],
    size: tuple[int, int],
    kind: str,
) -> None:
    path = f"/v2/images/{path}"
    block = FROM_IMAGES[path][model][0]
    body = {"model": model, block: {**params, "image": image}, "webhookUrl": receiver.url}
    answer = client.post(path, json=json.loads(json.dumps(body).replace("IMAGE", image)))
    job_id = check(answer, path)["jobId"]
    assert receiver.next().json["event"] == "completed"
    (link,) = sandbox.wait(job_id).images
    made = Image.open(io.BytesIO(httpx.get(link, trust_env=False).content))
    assert (made.size, made.format) == (size, kind)
    job = check(client.get(f"/v2/jobs/{job_id}"), "/v2/jobs/{id}")
    assert job["input"]["image"] == image


@pytest.mark.parametrize("url", ["/uploads/none", "data:image/png;base64,AAAA", "http://127.0.0.1:9/x.png"])
def test_an_image_that_cannot_be_loaded_is_refused(
    sandbox: SandboxServer, client: httpx.Client, url: str
) -> None:
    where = f"{sandbox.url}{url}" if url.startswith("/") else url
    answer = client.post(
        "/v2/images/upscale", json={"model": "clarity-upscale", "clarityUpscaleParams": {"image": where}}
    )
    assert list(check(answer, "/v2/images/upscale")["details"]) == ["clarityUpscaleParams.image"]


@pytest.mark.parametrize("content", [b"", b"%PDF-1.7"])
def test_what_is_no_image_cannot_be_uploaded(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/v2/uploads", files={"file": ("x.png", content)})
    assert answer.status_code == 400
    check(answer, "/v2/uploads")


@pytest.mark.parametrize("path", EDITS)
@settings(max_examples=30, suppress_health_check=list(HealthCheck), deadline=None)
@given(data=st.data())
def test_bodies_are_taken_that_the_schema_takes(
    client: httpx.Client, image: str, path: str, data: st.DataObject
) -> None:
    body: Any = data.draw(fitting(asked(path)))
    block = FROM_IMAGES[path][body["model"]][0]
    body[block]["image"] = image
    for name in ("mask", "webhookUrl"):
        holder = body[block] if name == "mask" else body
        if name in holder:
            holder[name] = image
    if data.draw(st.booleans()):
        where = data.draw(st.sampled_from([body, body[block]]))
        name = data.draw(st.sampled_from([*where, "seed", "sharpen", "unknown"]))
        where[name] = data.draw(st.sampled_from([None, -1, 10**6, 0.5, "x", [], {}]))
    needs = {"inpaint": "mask", "outpaint": "outpaint"}
    valid = validator(asked(path)).is_valid(body)
    if valid:
        params = body[block]
        urls = {body.get("webhookUrl", image), params.get("mask", image), params["image"]}
        valid = urls == {image} and needs.get(params.get("mode"), "image") in params
    answer = client.post(path, json=body)
    assert (answer.status_code == 202) == valid, answer.text
    check(answer, path)
