import json
from typing import Any

import pytest

from receiver.gateways.replicate import Replicate
from tests.support.gateway_samples import a_job, adapter

GATEWAY = adapter(Replicate, "r8_key")
CALLBACK = "https://archive.example/callbacks/replicate/token"
SCHNELL = "black-forest-labs/flux-schnell"


def test_a_submission_has_replicates_words() -> None:
    job = a_job("replicate", model=SCHNELL, seed="7", num_images=2, params={"go_fast": True})
    request = GATEWAY.submit_request(job, CALLBACK)
    assert (request.method, str(request.url)) == ("POST", "https://api.replicate.com/v1/predictions")
    assert request.headers["authorization"] == "Bearer r8_key"
    assert json.loads(request.content) == {
        "version": SCHNELL,
        "input": {"go_fast": True, "prompt": "a red kite", "seed": 7, "num_outputs": 2},
        "webhook": CALLBACK,
        "webhook_events_filter": ["completed"],
    }
    alone = json.loads(GATEWAY.submit_request(a_job("replicate", model="a/b"), None).content)
    assert alone == {"version": "a/b", "input": {"prompt": "a red kite"}}


@pytest.mark.parametrize(
    ("given", "cursor"),
    [
        ("https://api.replicate.com/v1/predictions?cursor=cD0y%3D", "cD0y="),
        ("https://evil.example/?cursor=abc", "abc"),
        ("https://api.replicate.com/v1/predictions", None),
        ("http://[", None),
        (None, None),
        (7, None),
    ],
)
def test_of_the_next_page_only_the_cursor_is_taken(given: Any, cursor: str | None) -> None:
    assert GATEWAY.next_cursor(given) == cursor
    request = GATEWAY.list_request(cursor)
    assert request is not None
    assert request.url.host == "api.replicate.com"
