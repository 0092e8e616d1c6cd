"""What a webhook endpoint costs that does nothing: `python -m tests.benchmarks.bare PORT`.

uvicorn and Starlette, a route that reads the body and answers 204, and nothing else.
"""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def take(request: Request) -> Response:
    await request.body()
    return Response(status_code=204)


async def ready(_request: Request) -> Response:
    return Response("ready")


def main() -> None:
    routes = [
        Route("/callbacks/{gateway}/{token:path}", take, methods=["POST"]),
        Route("/readyz", ready),
    ]
    uvicorn.run(Starlette(routes=routes), port=int(sys.argv[1]), access_log=False, log_config=None)


if __name__ == "__main__":
    main()
