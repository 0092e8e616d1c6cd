"""`darkroom serve`: run the service."""

from typing import Annotated, Literal

import typer

from receiver.cli import options, run


def serve(
    *,
    host: Annotated[str | None, options.option("Overrides DARKROOM_HOST.", "HOST", "--host")] = None,
    port: options.Port = None,
    work: Annotated[
        bool, typer.Option("--work/--no-work", help="Also work on jobs, or leave that to `darkroom work`.")
    ] = True,
    only: Annotated[
        Literal["callbacks", "api"] | None,
        options.option(
            "Serve one part only, and do no work: `callbacks`, which may face the internet and needs no "
            "bucket, or `api`, with the gallery.",
            *("ROLE", "--only"),
        ),
    ] = None,
    processes: Annotated[
        int,
        options.option(
            "Serve the port of --only from several processes, one for each core; for ledgers in PostgreSQL.",
            *("N", "--processes"),
            min=1,
            max=run.MOST_PROCESSES,
            show_default=True,
        ),
    ] = 1,
) -> None:
    """Run Darkroom: receive callbacks, serve the API and gallery, work on jobs, until Ctrl-C."""
    run.serve(host=host, port=port, work=work, only=only, processes=processes)
