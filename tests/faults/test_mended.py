"""What an operator, a gateway or an image host mends while the links live: no verdict is final before."""

import re

import httpx
import pytest

from tests.faults.scenes import GATEWAYS, Scene, Stage
from tests.faults.world import Accepted
from tests.support.sandbox import mend

SOON = {"callback_polls": (0.2, 0.3), "downloads": (0, 0.05, 0.1)}
TRIES = len(SOON["downloads"])
"""After so many tries in quick succession a link that is dead for certain is given up."""
ONE, FRAME = ("api-in-one",), ("apiframe",)
MOVED, AWAY, ODD = "unknown_image_host", "image_unavailable", "garbled_answer"
TURNED = {"fault": "redirect_image", "url": "https://cdn.moved.example/a"}
REFUSED = {"fault": "expired_link", "forever": True, "status": 403}


def link(url: str) -> dict[str, object]:
    return {"fault": "odd_link", "url": url}


def waits(scene: Scene, jobs: list[Accepted], status: str, code: str, *, says: str = "") -> None:
    """Wait until jobs were tried several times, and see that they go on and say why."""

    def tried() -> bool:
        shown = [scene.world.get(f"/v1/jobs/{job.job_id}") for job in jobs]
        assert {job["status"] for job in shown} <= {"queued", "submitting", "running", "ready"}, shown
        errors = [job["error"] or {} for job in shown if job["attempts"] >= TRIES and job["status"] == status]
        return [error.get("code") for error in errors if says in error["message"]] == [code] * len(jobs)

    scene.until(tried)


def warned(scene: Scene, job: Accepted, code: str) -> None:
    """See that Status warns of what waits, and that it is measured; no image's address is in either."""
    name = f"{job.gateway} {code}"
    scene.until(lambda: name in scene.world.get("/readyz")["warnings"])
    warning = scene.world.get("/readyz")["warnings"][name]
    assert f"darkroom jobs --code {code}" in warning
    assert "/images/" not in warning
    page = httpx.get(f"{scene.world.url}/status", trust_env=False).text
    assert name in page
    metrics = httpx.get(f"{scene.world.url}/metrics", trust_env=False).text
    held = rf'^darkroom_jobs_held{{code="{code}",gateway="{job.gateway}"}} [1-9]'
    assert re.search(held, metrics, re.MULTILINE), metrics


def restart(scene: Scene, **variables: str) -> None:
    """Start the service again with other settings."""
    scene.world.kill()
    scene.world.variables |= variables
    scene.world.start()


def test_an_operator_allows_a_network(stage: Stage) -> None:
    with stage.scene("network not allowed", timing=SOON, DARKROOM_DOWNLOAD__ALLOW_NETWORKS="") as scene:
        jobs = scene.submit(each=2)
        waits(scene, jobs, "ready", "forbidden_address", says="443")
        for job in jobs:
            warned(scene, job, "forbidden_address")
        restart(scene, DARKROOM_DOWNLOAD__ALLOW_NETWORKS="127.0.0.0/8")
        scene.archived(jobs)


def test_an_operator_lists_an_image_host(stage: Stage) -> None:
    """Its name leads nowhere here; what matters is that it is looked up at all, and that the job lives."""
    with stage.scene("image host not listed", timing=SOON) as scene:
        jobs = scene.submit("apiframe", fault=link("https://cdn.moved.example/a.png"))
        waits(scene, jobs, "ready", "unknown_image_host", says="__IMAGE_HOSTS")
        warned(scene, jobs[0], "unknown_image_host")
        restart(scene, DARKROOM_GATEWAYS__APIFRAME__IMAGE_HOSTS="moved.example")
        waits(scene, jobs, "ready", "image_unavailable", says="cdn.moved.example")
        mend_all(scene, jobs)
        scene.archived(jobs)


def mend_all(scene: Scene, jobs: list[Accepted]) -> None:
    for job in jobs:
        mend(scene.world.sandbox, scene.world.get(f"/v1/jobs/{job.job_id}")["gateway_job_id"])


@pytest.mark.parametrize(
    ("name", "fault", "gateways", "status", "code", "says"),
    [
        ("image at a fake address", link("//198.18.0.7/a"), ONE, "ready", "forbidden_address", "fake-IP"),
        ("image host not listed", link("http://cdn.moved.example/a"), FRAME, "ready", MOVED, "moved.example"),
        ("image redirects elsewhere", TURNED, FRAME, "ready", MOVED, "cdn.moved.example"),
        ("image host has no address", link("https://gone.invalid/a"), ONE, "ready", AWAY, "gone.invalid"),
        ("a page for an image", {"fault": "html_image"}, GATEWAYS, "ready", "not_an_image", ""),
        ("image host refuses", REFUSED, GATEWAYS, "ready", "link_refused", "403"),
        ("success without an image", {"fault": "no_images"}, GATEWAYS, "running", "no_images", ""),
        (
            "image in an unknown place",
            {"fault": "odd_place"},
            GATEWAYS,
            "running",
            ODD,
            "media.files[0].href",
        ),
        (
            "status unknown",
            {"fault": "odd_status", "message": "POLISHED"},
            GATEWAYS,
            "running",
            ODD,
            "POLISHED",
        ),
        ("poll answered by a page", {"fault": "odd_poll+no_callback"}, GATEWAYS, "running", ODD, "be read"),
    ],
)
def test_a_gateway_or_image_host_is_mended(
    stage: Stage,
    name: str,
    fault: dict[str, object],
    gateways: tuple[str, ...],
    status: str,
    code: str,
    says: str,
) -> None:
    with stage.scene(name, timing=SOON) as scene:
        jobs = scene.submit(*gateways, fault=fault)
        waits(scene, jobs, status, code, says=says)
        if code != AWAY:  # of that the circuit of the host tells
            for job in jobs:
                warned(scene, job, code)
        mend_all(scene, jobs)
        scene.archived(jobs)
