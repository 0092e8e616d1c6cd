"""What tables say is sent, and how refusals are put, where the samples of gateways do not show it."""

import pytest

from receiver.gateways import refusals, requests
from receiver.gateways.bfl import TABLE
from storage.models import JobRequest


def test_sizes_are_turned_and_named_by_their_ratio() -> None:
    assert requests.sizes("1:1=1024x1024 21:9=1456x624") == {
        "1:1": {"width": 1024, "height": 1024},
        "21:9": {"width": 1456, "height": 624},
        "9:21": {"width": 624, "height": 1456},
    }


@pytest.mark.parametrize(
    ("ratio", "fields"),
    [(None, []), ("16:9", ["params.width"]), ("7:3", ["aspect_ratio", "params.width"])],
)
def test_a_width_is_given_or_chosen(ratio: str | None, fields: list[str]) -> None:
    request = JobRequest("flux-2-pro", "a red kite", aspect_ratio=ratio, params={"width": 2048})
    assert [one["field"] for one in requests.faults(TABLE, request)] == fields


def test_chosen_sizes_are_of_their_ratio_and_of_one_megapixel() -> None:
    """A second one is paid."""
    for family in TABLE.families:
        for ratio, size in family.maps.get("aspect_ratio", {}).items():
            wide, high = map(int, ratio.split(":"))
            assert size["width"] * high == size["height"] * wide
            assert size["width"] * size["height"] <= 2**20
            assert size["width"] % 16 == size["height"] % 16 == 0


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("no", "no"),
        ([{"loc": ["body", "width"], "msg": "too large", "type": "x"}], "body.width: too large"),
        (
            [{"loc": ["body", 0], "msg": "a"}, {"msg": "b"}, {"loc": "body", "msg": "c"}],
            "body.0: a; b; body: c",
        ),
        ([{"msg": 7}, "no", None], None),
        ([], None),
        ("  ", None),
        ({"msg": "no"}, None),
    ],
)
def test_a_refusal_may_be_a_list(value: object, text: str | None) -> None:
    assert refusals.said(value) == text
