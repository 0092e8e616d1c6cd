"""`darkroom work`: work on jobs without serving the API."""

from typing import Annotated

from receiver.cli.options import option
from receiver.cli.serve import built, exit_on_error, listening, warn, work_until_stopped


def work(
    *,
    port: Annotated[
        int | None,
        option(
            "Serve /healthz, /readyz and /metrics there; 0 picks a free one. By default, none.",
            *("PORT", "--port"),
            min=0,
            max=65535,
        ),
    ] = None,
) -> None:
    """Only work on jobs, beside `darkroom serve --no-work`, until Ctrl-C."""
    with exit_on_error():
        from receiver.http.server import serve
        from receiver.service import Role
        from receiver.settings import ignored, load

        if port is None:
            work_until_stopped(load())
            return
        settings = load(port=port)
        with listening(settings) as listener:
            service = built(settings, Role.WORK)
            warn(ignored())
            serve(service, service.asgi(work=True), listener)
