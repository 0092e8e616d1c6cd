"""Run the demo: an S3 server, the sandbox and the service on loopback, prompts, and a check of every image.

It ignores environment variables and `.env`, so it cannot reach a real bucket or a real gateway.
"""

import errno
import fcntl
import os
import secrets
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from receiver.app import build
from receiver.client import Darkroom
from receiver.demo.gateways import one_prompt_each, settings_of
from receiver.demo.seaweedfs import EmbeddedS3
from receiver.errors import Unready
from receiver.http.server import address, listen, served
from receiver.redaction import Redactor
from receiver.resources import Bucket
from receiver.sandbox import SandboxConfig, SandboxServer
from receiver.schemas.job import Job
from receiver.schemas.output import Output
from receiver.settings import Settings
from receiver.telemetry import logs
from storage.ledger.ledger import Ledger

BUCKET = "darkroom-demo"
PORT: int = Settings.model_fields["port"].default
"""Where the README's examples and the commands look for the service."""
TAG = "demo"

_RAMEN = "A photorealistic bowl of ramen with steam rising, side lighting, food photography"


def _imagen(prompt: str, aspect_ratio: str, image_size: str = "1K", form: str = "jpg") -> Mapping[str, Any]:
    return {
        "gateway": "apiframe",
        "model": "imagen-4-fast",
        "prompt": prompt,
        "aspect_ratio": aspect_ratio,
        "params": {"image_size": image_size, "output_format": form},
    }


def _ramen(model: str, **more: Any) -> Mapping[str, Any]:
    return {"gateway": "api-in-one", "model": model, "prompt": _RAMEN, **more}


PROMPTS = (
    _imagen(
        "A quick concept sketch of a futuristic sneaker in three color variations, clean studio background.",
        "4:3",
    ),
    _imagen("A social media graphic reading 'WEEKEND SALE' with bright bold type.", "1:1", form="png"),
    _imagen("A simple flat-style icon set of weather symbols: sun, cloud, rain, and snow.", "3:4"),
    _imagen("A landscape thumbnail of a desert highway at sunset, warm tones.", "16:9", "2K"),
    _imagen("A set of mascot poses for a coffee brand, friendly cartoon bean character.", "9:16"),
    _imagen("A blog header of a tidy home office with a laptop and a plant, soft daylight.", "16:9"),
    _imagen("a sleek silver sports car on a coastal highway at sunset, hyper-realistic", "16:9"),
    _ramen("imagen4-fast", aspect_ratio="1:1", seed=7),
    _ramen("imagen4", aspect_ratio="4:3", seed=42, negative_prompt="blurry, cartoon, text"),
    _ramen("imagen4-ultra", aspect_ratio="3:4", seed=2026, num_images=4),
)
"""The examples of the two gateways' own pages, as arguments of `Darkroom.submit`."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The parts of a running demo. `run` is the tag of this run's jobs, which are beside earlier runs'."""

    folder: Path
    url: str
    port_in_use: bool
    """Whether PORT was in use, so that `url` has another one."""
    run: str
    prompts: Sequence[Mapping[str, Any]]
    """What is submitted, as arguments of `Darkroom.submit`."""
    s3: EmbeddedS3
    sandbox: SandboxServer
    ledger: Ledger
    bucket: Bucket
    darkroom: Darkroom

    @property
    def images(self) -> Path:
        """The folder of the downloaded images."""
        return self.folder / "images"

    @property
    def images_wanted(self) -> int:
        """How many images the prompts make."""
        return sum(prompt.get("num_images", 1) for prompt in self.prompts)

    def submit(self) -> Iterator[Job]:
        """Submit the prompts one by one."""
        for prompt in self.prompts:
            yield self.darkroom.submit(**prompt, tags={TAG: self.run})

    def jobs(self) -> list[Job]:
        """Return this run's jobs, in the order of the prompts."""
        return list(self.darkroom.jobs(limit=None, **{f"tag.{TAG}": self.run}))[::-1]

    def outputs(self) -> list[Output]:
        """Return this run's outputs, in the order of the prompts."""
        found = list(self.darkroom.search(limit=None, **{f"tag.{TAG}": self.run}))
        return sorted(found, key=lambda output: (output.job_id, output.index))

    def faults(self, output: Output) -> list[str]:
        """Compare an output's copies in sandbox, ledger, record, S3 and file; return what differs."""
        job = self.ledger.job(output.job_id)
        drawn = sha256(self.sandbox.image_bytes(job.gateway_job_id or "", output.index)).hexdigest()
        record = self.bucket.archive.read_record(job)
        entry = next(entry for entry in record["outputs"] if entry["index"] == output.index)
        stored, length = self.bucket.store.digest(output.key)
        file = self.darkroom.download(output, self.images)
        digests = {
            "the record": entry["sha256"],
            "the object in S3": stored,
            "the gateway's image": drawn,
            "the downloaded file": sha256(file.read_bytes()).hexdigest(),
        }
        wrong = [
            f"{output.id}: {what} has SHA-256 {digest}, the ledger has {output.sha256}"
            for what, digest in digests.items()
            if digest != output.sha256
        ]
        if (entry["key"], length) != (output.key, output.bytes):
            wrong.append(f"{output.id}: {output.key} has another length or key than its record")
        return wrong


@contextmanager
def running_demo(folder: Path, *, port: int | None = 0, all_gateways: bool = False) -> Iterator[Demo]:
    """Start everything on 127.0.0.1, and stop it at the end. `port` None takes PORT, or a free one.

    It submits the prompts of two gateways' own pages; with `all_gateways` one prompt to each that there is.

    Raises Unready if another demo runs in the folder, SettingsError if the S3 server is not installed, and
    OSError if the port is in use or the folder cannot be written.
    """
    _forget_the_user()
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_alone_in(folder))
        listener = stack.enter_context(listener_for(port))
        log = stack.enter_context((folder / "demo.log").open("a", encoding="utf-8"))
        _log_to(log, Redactor())
        s3 = stack.enter_context(EmbeddedS3(folder / "s3"))
        sandbox = stack.enter_context(SandboxServer(SandboxConfig()))
        service = build(_settings(folder, address(listener), s3, sandbox))
        assert service.jobs is not None
        _log_to(log, service.resources.redactor)
        # All of it is here, so whatever is wrong is told and not waited for.
        service.resources.database.migrate()
        service.jobs.bucket.open()
        url = stack.enter_context(served(service, listener))
        darkroom = stack.enter_context(Darkroom(url))
        ledger, bucket = service.resources.ledger, service.jobs.bucket
        prompts = tuple(one_prompt_each(sandbox)) if all_gateways else PROMPTS
        port_in_use = port is None and not url.endswith(f":{PORT}")
        yield Demo(
            folder, url, port_in_use, secrets.token_hex(4), prompts, s3, sandbox, ledger, bucket, darkroom
        )


def listener_for(port: int | None, usual: int = PORT) -> socket.socket:
    """Listen on a port; None takes the usual one, or a free one if that is in use. Raises OSError."""
    try:
        return listen("127.0.0.1", usual if port is None else port)
    except OSError as error:
        if port is not None or error.errno != errno.EADDRINUSE:
            raise
        return listen("127.0.0.1", 0)


def _settings(folder: Path, url: str, s3: EmbeddedS3, sandbox: SandboxServer) -> Settings:
    return Settings(
        _env_file=None,
        public_url=url,
        data_dir=folder,
        s3={
            "endpoint": s3.endpoint,
            "bucket": BUCKET,
            "create_bucket": True,
            "region": "us-east-1",
            "access_key": s3.access_key,
            "secret_key": s3.secret_key,
        },
        gateways=settings_of(sandbox),
        download={"allow_networks": ["127.0.0.0/8"]},
    )


def _forget_the_user() -> None:
    """Remove settings and AWS profiles from this process's environment: it may use loopback only."""
    for name in list(os.environ):
        if name.upper().startswith(("AWS_", "DARKROOM_")):
            del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unready(
                f"Another demo is running in {folder}. Stop it first, or give this one another --dir."
            ) from None
        yield


def _log_to(file: TextIO, redactor: Redactor) -> None:
    # Not to the screen, where the progress is.
    logs.configure("json", "info", redactor, stream=file)
