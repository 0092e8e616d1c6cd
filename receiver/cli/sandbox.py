"""`darkroom sandbox`: run stand-ins for the gateways on this machine."""

from typing import Annotated, Any, get_args

from receiver.cli.console import MISUSED, fail, out, say
from receiver.cli.options import option
from receiver.cli.run import port_message, stop_asked


def sandbox(
    *,
    port: Annotated[
        int, option("0 picks a free one.", "PORT", "--port", min=0, max=65535, show_default=True)
    ] = 8322,
    latency: Annotated[
        str, option("Seconds that a job takes, from and to.", "MIN,MAX", show_default=True)
    ] = "0.3,1.2",
    dialect: Annotated[
        str,
        option(
            "Format of API in One callbacks: envelope, kie, kling, evolink or flat.",
            "NAME",
            show_default=True,
        ),
    ] = "envelope",
    signature: Annotated[
        str, option("Key of the Apiframe signature: raw, hex, or none.", "NAME", show_default=True)
    ] = "raw",
) -> None:
    """Run stand-ins for the gateways on this machine: real HTTP, real images, no costs."""
    from receiver.sandbox import SandboxConfig, SandboxServer

    config = SandboxConfig(
        latency_s=_range(latency),
        dialect=_one_of("--dialect", dialect, "Dialect"),
        signature_key=_one_of("--signature", signature, "SignatureKey"),
    )
    stopped = stop_asked()
    try:
        server = SandboxServer(config, port=port).start()
    except OSError as error:
        fail(port_message("127.0.0.1", port, error, "use another --port."))
    try:
        say(
            f"The sandbox runs at {server.url} until Ctrl-C. To use it, start Darkroom with these settings:\n"
        )
        out().print(_sandbox_settings(server.url), soft_wrap=True)
        say(f"\nIts jobs: {server.url}/sandbox/jobs   Faults that it can simulate: {server.url}/")
        stopped.wait()
    finally:
        server.stop()


def _range(text: str) -> tuple[float, float]:
    try:
        least, most = (float(part) for part in text.split(","))
    except ValueError:
        least, most = 1.0, 0.0
    if not 0 <= least <= most:
        fail(f"--latency {text}: must be two numbers, smaller first, such as 0.3,1.2", MISUSED)
    return least, most


def _one_of(option: str, value: str, kind: str) -> Any:
    from receiver.sandbox import config

    known = get_args(getattr(config, kind))
    if value not in known:
        fail(f"{option} {value}: must be one of {', '.join(known)}.", MISUSED)
    return value


def _sandbox_settings(url: str) -> str:
    return f"""\
DARKROOM_GATEWAYS__APIFRAME__BASE_URL={url}
DARKROOM_GATEWAYS__APIFRAME__API_KEY=afk_sandbox
DARKROOM_GATEWAYS__API_IN_ONE__BASE_URL={url}
DARKROOM_GATEWAYS__API_IN_ONE__API_KEY=aio_sandbox
DARKROOM_DOWNLOAD__ALLOW_NETWORKS=127.0.0.0/8
DARKROOM_PUBLIC_URL=http://127.0.0.1:8321"""
