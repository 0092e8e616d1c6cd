"""`GET /v1/models` and `darkroom models`: every known model, with what it takes and costs."""

from typing import Any

import pytest

from tests.support.live import Live
from tests.support.running import Running, data

PAGE = "/v1/models"


@pytest.fixture(scope="module")
def models(live: Live) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["gateway"], one["model"]): one for one in live.http.get(PAGE).json()["models"]}


def test_every_known_model_is_listed(live: Live, models: dict[tuple[str, str], dict[str, Any]]) -> None:
    gateways = live.parts.submitter.context.gateways
    assert set(models) == {(name, model) for name, one in gateways.items() for model in one.models}
    assert len(models) > 50
    only = live.http.get(PAGE, params={"gateway": "api-in-one"}).json()["models"]
    assert {one["gateway"] for one in only} == {"api-in-one"}
    assert live.http.get(PAGE, params={"gateway": "nowhere"}).json() == {"models": []}


def test_a_model_has_what_it_takes_and_costs(models: dict[tuple[str, str], dict[str, Any]]) -> None:
    ours = models["api-in-one", "imagen4-ultra"]
    assert (ours["estimate"], ours["takes"]) == (
        12,
        ["negative_prompt", "aspect_ratio", "num_images", "seed"],
    )
    theirs = models["apiframe", "imagen-4"]
    assert (theirs["estimate"], theirs["takes"]) == (None, ["aspect_ratio"])
    assert theirs["aspect_ratios"] == ["1:1", "4:3", "3:4", "16:9", "9:16"]


def test_what_a_model_takes_is_accepted_and_else_refused(
    live: Live, models: dict[tuple[str, str], dict[str, Any]]
) -> None:
    given = {"negative_prompt": "fog", "aspect_ratio": "16:9", "num_images": 2, "seed": "7"}
    for at in (("apiframe", "imagen-4"), ("apiframe", "qwen-image"), ("api-in-one", "imagen4")):
        for name, value in given.items():
            body = {"gateway": at[0], "model": at[1], "prompt": "a red kite", name: value}
            answer = live.http.post("/v1/jobs/batch", json={"jobs": [body], "dry_run": True}).json()
            assert (answer["results"][0]["problem"] is None) == (name in models[at]["takes"]), (at, name)


def test_the_command_lists_them(running: Running) -> None:
    told = running.darkroom_command("models", "--gateway", "api-in-one")
    assert (told.returncode, "imagen4-ultra" in told.stdout, "qwen-image" in told.stdout) == (0, True, False)
    listed = data(running.darkroom_command("models", "--json"))
    assert {"imagen4", "qwen-image"} <= {one["model"] for one in listed}


@pytest.mark.parametrize(("asked", "sent"), [("Imagen-4-FAST", "imagen-4-fast"), ("Brand-New", "Brand-New")])
def test_a_known_model_is_sent_as_its_gateway_spells_it(live: Live, asked: str, sent: str) -> None:
    job = live.submit({"gateway": "apiframe", "model": asked, "prompt": "a red kite"})
    assert job["request"]["model"] == sent
