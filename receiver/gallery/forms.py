"""Parse HTML forms within limits, and refuse those that other sites send."""

from urllib.parse import parse_qsl

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request

from receiver.errors import Forbidden, InvalidRequest
from receiver.http.auth import host_of
from receiver.http.limits import read_body

MAX_FORM = 1024 * 1024
"""As much as the API takes; a form writes most letters of the world with nine bytes each."""
MAX_FIELDS = 200
URLENCODED = "application/x-www-form-urlencoded"

Form = ImmutableMultiDict[str, str]
"""The fields of a form, in their order; the same name may be there several times."""

NOTHING: Form = ImmutableMultiDict()


async def read_form(request: Request, *, within_s: float, limit: int = MAX_FORM) -> Form:
    """Parse a form; raise InvalidRequest, BodyTooLarge or TooSlow."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != URLENCODED:
        raise InvalidRequest([{"field": "Content-Type", "message": f"must be {URLENCODED}"}])
    body = await read_body(request.headers, request.receive, limit, within_s=within_s)
    try:
        text = body.decode("ascii")
        fields = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise InvalidRequest([{"field": "form", "message": "is not a form in UTF-8"}]) from None
    return ImmutableMultiDict(fields)


def refuse_other_sites(request: Request, public_url: str | None) -> None:
    """Raise Forbidden if a browser says that another site's page sends this form.

    Every browser of today says so in `Sec-Fetch-Site`; `Origin` is for older ones. A program that is no
    browser sends neither, and no page of another site can make it do anything.
    """
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    ours = [host for url in (str(request.url), public_url or "") if (host := host_of(url))]
    # `Origin: null` has no host.
    theirs = host_of(origin or "")
    foreign = (
        site not in {"same-origin", "none"} if site is not None else origin is not None and theirs not in ours
    )
    if foreign:
        raise Forbidden(
            "This form was sent by a page of another site. Open the page here and send it again."
            + _which(theirs, ours, hidden=origin == "null")
        )


def _which(theirs: str | None, ours: list[str], *, hidden: bool) -> str:
    """Return which hosts differed, and what a reverse proxy that spoilt it should do."""
    if hidden:
        return (
            " The browser hid where the form came from (Origin: null): a reverse proxy that adds "
            "Referrer-Policy: no-referrer must leave that out."
        )
    if theirs is None or theirs in ours:
        return ""
    here = " and ".join(host[:100] for host in dict.fromkeys(ours)) or "a host without a name"
    return (
        f" The browser had it from {theirs[:100]}, and here it came to {here}. If a reverse proxy is "
        "between them, let it pass on the Host header that it was asked for, or set DARKROOM_PUBLIC_URL."
    )


def safe_next(text: str | None) -> str:
    """Return where to go after signing in: a path of this gallery, never another site (open redirect)."""
    text = text or "/"
    path = text.partition("?")[0]
    # Browsers drop tabs and line ends from a URL, and take a backslash for a slash.
    plain = len(text) <= 2000 and text.isascii() and text.isprintable() and not set(text) & set("\\ #")
    local = path.startswith("/") and not path.startswith("//")
    ours = not path.startswith(("/v1/", "/sign-", "/static/", "/callbacks/"))
    return text if plain and local and ours else "/"
