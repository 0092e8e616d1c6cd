"""`darkroom work`: work on jobs without serving the API."""

from typing import Annotated

from receiver.cli import run
from receiver.cli.options import option


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
    run.work(port=port)
