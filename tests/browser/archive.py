"""An archive to look at: jobs of both gateways, some with odd words, some failed."""

from receiver.sandbox import SandboxConfig, SandboxServer
from tests.support.live import Live

READER, SUBMITTER, ADMIN = "reader-of-the-gallery", "submitter-of-the-gallery", "admin-of-the-gallery"
TOKENS = {READER: f"rita:read:{READER}", SUBMITTER: f"sam:submit:{SUBMITTER}", ADMIN: f"ada:admin:{ADMIN}"}

SUBJECTS = (
    "a red kite",
    "a grey harbour",
    "a bowl of ramen",
    "a lighthouse",
    "a paper boat",
    "a quiet library",
)
MANNERS = ("at sunset", "in the fog", "side lighting", "from above")
SCRIPT = "<script>alert('prompt')</script><img src=x onerror=alert(1)>"
RIGHT_TO_LEFT = "منارة في الضباب عند الغروب"
FAILED = "a storm that never came"

RUNS = 24


def sandbox_with_pictures(pixels: int) -> SandboxServer:
    """A sandbox whose images, of plain colours, have about this many pixels on a side."""
    return SandboxServer(
        SandboxConfig(
            latency_s=(0.02, 0.05), image_px=pixels, plain_images=True, retry_delays_s=(0.05, 0.1, 0.2)
        )
    )


def filled(live: Live) -> None:
    """Make some 80 images, and two jobs that failed; return when all of it is archived."""
    live.http.headers["authorization"] = f"Bearer {ADMIN}"
    asked = [job for n in range(RUNS) for job in [_ramen(live, n)]]
    asked += [_kite(live, prompt) for prompt in (SCRIPT, RIGHT_TO_LEFT)]
    broken = {"fault": "expired_link", "forever": True}
    asked.append(_kite(live, FAILED, fault=broken))
    for job_id in asked:
        live.finish(job_id)


def _ramen(live: Live, n: int) -> str:
    job: str = live.submit(
        {"gateway": "api-in-one", "model": ("imagen4", "imagen4-ultra", "imagen4-fast")[n % 3]},
        prompt=f"{SUBJECTS[n % 6]}, {MANNERS[n // 6]}",
        num_images=1 if n % 3 == 2 else 4,
        seed=1000 + n,
        aspect_ratio=("1:1", "4:3", "3:4", "16:9")[n % 4],
        tags={"campaign": ("autumn", "menu")[n % 2]},
    )["id"]
    return job


def _kite(live: Live, prompt: str, **more: object) -> str:
    asked = {"gateway": "apiframe", "model": "imagen-4-fast", "prompt": prompt}
    job: str = live.submit(asked, tags={"campaign": "odd"}, **more)["id"]
    return job


def count(live: Live, **filters: str) -> int:
    """How many images there are now, as the API tells it."""
    page = live.http.get("/v1/outputs", params={"limit": "500", **filters}).json()
    assert page["next_cursor"] is None
    return len(page["outputs"])
