"""`GET /v1/models` and `darkroom models`: every known model, with what it takes and costs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from storage.models import Status
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


KITE = {"gateway": "apiframe", "prompt": "a red kite"}
MISTAKEN = [
    ("imagen4-fast", "set the gateway to api-in-one, or the model to imagen-4-fast"),
    ("imagen-4-fsat", "did you mean imagen-4-fast?"),
]


@pytest.mark.parametrize(("model", "advice"), MISTAKEN)
def test_a_mistaken_model_is_refused_before_it_is_sent(live: Live, model: str, advice: str) -> None:
    before = live.http.get("/v1/status").json()["accepted"]
    body = KITE | {"model": model}
    alone = live.http.post("/v1/jobs", json=body)
    rows = live.http.post("/v1/jobs/batch", json={"jobs": [body, KITE | {"model": "imagen-4"}]}).json()
    for problem in (alone.json(), rows["results"][0]["problem"]):
        assert (problem["status"], problem["code"]) == (422, "unknown_model")
        (fault,) = problem["faults"]
        assert (fault["field"], advice in fault["message"]) == ("model", True)
    assert rows["results"][1]["created"]
    assert live.http.get("/v1/status").json()["accepted"] == before + 1


@pytest.mark.parametrize(("model", "_advice"), MISTAKEN)
def test_a_mistaken_model_may_be_sent_as_it_is(live: Live, model: str, _advice: str) -> None:
    job = live.submit(KITE | {"model": model, "unsupported": "ignore"})
    (warning,) = job["warnings"]
    assert (job["request"]["model"], job["request"]["ignored"]) == (model, [])
    assert warning.endswith("The nearest known is imagen-4-fast.")


def test_a_new_model_has_a_warning_until_its_images_are_made(live: Live) -> None:
    body = {"gateway": "api-in-one", "model": "brand-new-model", "prompt": "a red kite"}
    rows = live.http.post("/v1/jobs/batch", json={"jobs": [body]}).json()["results"]
    first, job = rows[0]["job"], live.submit(body)
    assert first["warnings"] == job["warnings"]
    assert job["warnings"] == [
        "brand-new-model is no known model of api-in-one. It is sent as it is, and api-in-one may refuse it."
    ]
    refused = live.finish(job["id"])
    assert (refused["status"], refused["warnings"]) == ("failed", job["warnings"])
    assert job["warnings"][0] in live.http.get(f"/jobs/{job['id']}").text
    made = replace(live.job(job["id"]), status=Status.ARCHIVED)
    assert live.parts.submitter.warnings(made) == ()


def test_the_command_says_what_is_wrong_with_a_model(running: Running, tmp_path: Path) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        done = running.darkroom_command("submit", "--gateway", "apiframe", *arguments)
        return done.returncode, " ".join(done.stderr.split())

    code, error = told("a red kite", "--model", "imagen-4-fsat")
    assert (code, "model: is no known model of apiframe; did you mean imagen-4-fast?" in error) == (2, True)
    file = tmp_path / "prompts.csv"
    file.write_text("prompt,model\na red kite,imagen-4\na kite,Imagen4\n")
    code, error = told("--file", str(file))
    assert (code, "line 3: model: is a model of api-in-one, not of apiframe" in error) == (2, True)
    assert "Nothing was submitted." in error
    code, error = told("a red kite", "--model", "imagen4", "--ignore-unsupported")
    assert (code, "Warning: imagen4 is no known model of apiframe." in error) == (0, True)
    mistyped = ("--gateway", "apiframe", "--model", "imagen4", "--json")
    (job,) = data(running.darkroom_command("jobs", *mistyped))
    assert "Warning" in running.darkroom_command("show", job["id"]).stdout
