"""`darkroom sandbox`: run stand-ins for the gateways on this machine."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from receiver.cli.console import MISUSED, fail, out, say
from receiver.cli.options import option
from receiver.cli.run import exit_on_error, port_message, stop_asked

if TYPE_CHECKING:
    from receiver.sandbox.core.stand_in import StandIn


def sandbox(
    *,
    gateway: Annotated[
        list[str] | None,
        option(
            "Stand in for this gateway only; it may be one of DARKROOM_GATEWAYS_DIR. Repeatable.",
            "NAME",
            show_default="all",
        ),
    ] = None,
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
    from receiver.demo.gateways import settings_of
    from receiver.sandbox import SandboxConfig, SandboxServer
    from receiver.settings import load

    with exit_on_error():
        known = load()
    gateways = _stand_ins(gateway, dialect, signature, known.gateways_dir)
    config = SandboxConfig(latency_s=_range(latency))
    stopped = stop_asked()
    try:
        server = SandboxServer(config, port=port, gateways=gateways).start()
    except OSError as error:
        fail(port_message("127.0.0.1", port, error, "use another --port."))
    try:
        say(
            f"The sandbox runs at {server.url} until Ctrl-C. To use it, start Darkroom with these settings:\n"
        )
        lines = settings_lines(settings_of(server, known.gateways))
        out().print("\n".join(lines), soft_wrap=True)
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


def _stand_ins(names: list[str] | None, dialect: str, signature: str, folder: Path | None) -> "list[StandIn]":
    from receiver.sandbox.gateways import NAMES, api_in_one, apiframe, stand_ins

    own_files = _declared(folder) if folder else {}
    for name in names or ():
        _one_of("--gateway", name, (*NAMES, *own_files))
    _one_of("--dialect", dialect, api_in_one.DIALECTS)
    _one_of("--signature", signature, apiframe.SIGNATURE_KEYS)
    own: dict[str, Any] = {"api-in-one": {"dialect": dialect}, "apiframe": {"signature_key": signature}}
    built_in = stand_ins([name for name in names or NAMES if name in NAMES])
    chosen = [one for name, one in own_files.items() if not names or name in names]
    return [*(replace(one, **own.get(one.name, {})) for one in built_in), *chosen]


def _declared(folder: Path) -> "dict[str, StandIn]":
    """Return the stand-ins of the files that can be read backwards, and say which cannot."""
    from receiver.sandbox.gateways.declared import NotReadBackwards, declared

    found: dict[str, StandIn] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            one = declared(path)
        except NotReadBackwards as error:
            say(f"{path}: the sandbox cannot stand in for it. {error}.", "yellow")
            continue
        found[one.name] = one
    return found


def _one_of(option: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        fail(f"{option} {value}: must be one of {', '.join(known)}.", MISUSED)


def settings_lines(gateways: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the settings of a Darkroom on this machine that uses the sandbox, as lines of `.env`."""
    for gateway, settings in gateways.items():
        for name, value in settings.items():
            yield f"DARKROOM_GATEWAYS__{gateway.upper()}__{name.upper()}={value}"
    yield "DARKROOM_DOWNLOAD__ALLOW_NETWORKS=127.0.0.0/8"
    yield "DARKROOM_PUBLIC_URL=http://127.0.0.1:8321"
