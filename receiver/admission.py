"""Let a request in, or not: who it comes from, how many that one may make, and how far its token reaches."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from receiver.access import Access
from receiver.errors import Unauthorized
from receiver.limits import Limits


@dataclass(frozen=True, slots=True)
class Admission:
    """What every route under `/v1` asks first, before anything of a body is read."""

    access: Access
    limits: Limits

    def admit(self, request: Request, scope: str) -> None:
        """Admit a request, or raise Unauthorized, TooManyRequests or Forbidden.

        From then on `request.state.caller` says who it comes from.
        """
        client = request.client.host if request.client else None
        try:
            caller = self.access.who(request.headers, client=client)
        except Unauthorized:
            self.limits.stranger(request)
            raise
        if not self.access.open:
            self.limits.api(caller.name)
        caller.must_reach(scope)
        request.state.caller = caller
