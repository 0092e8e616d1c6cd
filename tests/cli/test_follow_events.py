"""The client's stream of events, against a server that says it byte by byte and breaks it off."""

import json
import socket
from itertools import islice

import pytest

from receiver.client import ApiError, Darkroom, Unreachable
from tests.support.raw_server import Script, Serve, reply

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
HERE = b"retry: 2000\nid: 4-1000\n\n"


def frame(number: int, kind: str = "job") -> bytes:
    data = json.dumps({"job_id": f"j{number}", "status": "running"})
    return f"id: {number}-1000\nevent: {kind}\ndata: {data}\n\n".encode()


def in_turn(*answers: bytes) -> Script:
    left = iter(answers)
    return lambda sock: sock.sendall(next(left))


def client(url: str, waited: list[float] | None = None) -> Darkroom:
    return Darkroom(url, retry_delays_s=[1, 2], sleep=([] if waited is None else waited).append)


def last_ids(heads: list[str]) -> list[str | None]:
    lines = [
        [line for line in head.splitlines() if line.lower().startswith("last-event-id")] for head in heads
    ]
    return [found[0].partition(": ")[2] if found else None for found in lines]


def test_events_come_with_what_they_say(serve: Serve) -> None:
    server = serve({"/v1/events": HEAD + HERE + b": still here\n\n" + frame(5) + frame(6, "output")})
    with client(server.url) as darkroom:
        first, second = islice(darkroom.events(), 2)
    assert (first.id, first.kind, first.data["job_id"]) == ("5-1000", "job", "j5")
    assert (second.id, second.kind) == ("6-1000", "output")


def test_a_broken_stream_goes_on_after_the_last_event(serve: Serve) -> None:
    answers = in_turn(
        HEAD + HERE + frame(5), HEAD + frame(6) + b"id: 7-1000\nevent: job\ndata: {", HEAD + frame(7)
    )
    server = serve({"/v1/events": answers})
    waited: list[float] = []
    with client(server.url, waited) as darkroom:
        found = [event.data["job_id"] for event in islice(darkroom.events("3-1000", job="a&b"), 3)]
    assert found == ["j5", "j6", "j7"]
    assert last_ids(server.heads) == ["3-1000", "5-1000", "6-1000"]
    assert all("GET /v1/events?job=a%26b " in head for head in server.heads)
    assert waited == [1, 1], "an event between them begins the patience anew"


def test_the_place_is_known_before_anything_happened(serve: Serve) -> None:
    server = serve({"/v1/events": in_turn(HEAD + HERE, HEAD + frame(5))})
    with client(server.url) as darkroom:
        assert next(darkroom.events()).id == "5-1000"
    assert last_ids(server.heads) == [None, "4-1000"]


def test_who_does_not_come_back_is_unreachable(serve: Serve) -> None:
    stopping = b'{"code": "unready", "detail": "stopping"}'
    gone = reply(stopping, status="503 Service Unavailable", Connection="close")
    server = serve({"/v1/events": in_turn(HEAD + frame(5), gone, gone, gone)})
    waited: list[float] = []
    with client(server.url, waited) as darkroom:
        events = darkroom.events()
        next(events)
        with pytest.raises(ApiError, match="stopping"):
            next(events)
    assert waited == [1, 2]


@pytest.mark.parametrize("answer", [HEAD, HEAD + b"data: [1]\n\n", HEAD + b"data: {\n\n", reply(b"<html>")])
def test_no_other_stream_is_taken_for_ours(serve: Serve, answer: bytes) -> None:
    with client(serve({"/v1/events": answer}).url) as darkroom, pytest.raises(Unreachable):
        next(darkroom.events())


def test_a_refusal_is_told_at_once(serve: Serve) -> None:
    def refuse(sock: socket.socket) -> None:
        sock.sendall(reply(b'{"code": "unauthorized", "detail": "no"}', status="401 Unauthorized"))

    server = serve({"/v1/events": refuse})
    with client(server.url) as darkroom, pytest.raises(ApiError) as caught:
        next(darkroom.events())
    assert (caught.value.code, server.connections) == ("unauthorized", 1)
