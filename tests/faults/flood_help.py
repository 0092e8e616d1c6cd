"""Ten thousand hostile callbacks, sent from a process of its own: `python -m tests.faults.flood_help`.

It reads an `Attack` as JSON from standard input, and prints when it began and ended, and how each kind was
answered: by status, `closed` if the connection ended without an answer, `open` if it was let stand.
"""

import asyncio
import json
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle
from time import monotonic
from typing import Any

MIB = 1024 * 1024
AT_ONCE = 64
"""Quick requests in flight at the same time; the slow ones come on top."""
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Attack:
    """What the attacker has: where to send, tokens that leaked, and tokens that are not true."""

    port: int
    leaked: list[str]
    dead: list[str]
    over_bytes: int
    """One more than a callback's body may have."""
    seconds: float
    """How long sending is spread out over."""


@dataclass
class Told:
    """How an attack went; times are of the machine's monotonic clock, in seconds."""

    began: float
    ended: float = 0.0
    answers: dict[str, dict[str, int]] = field(default_factory=dict)


class Attacker:
    def __init__(self, attack: Attack) -> None:
        self._attack = attack
        self._random = random.Random(7)
        self._leaked = cycle(attack.leaked)
        self._dead = cycle(attack.dead)
        self._limit = asyncio.Semaphore(AT_ONCE)

    def plan(self) -> dict[str, tuple[int, Callable[[], Awaitable[str]], bool]]:
        """List each kind: how many, how it is sent, and whether it takes its time."""
        return {
            "forged token": (3000, self.forged, False),
            "mangled token": (1500, self.mangled, False),
            "token for another gateway": (1500, self.foreign, False),
            "dead token": (1600, self.dead, False),
            "odd token": (500, self.odd, False),
            "garbage signature": (700, self.garbage_signature, False),
            "deep JSON": (250, self.deep, False),
            "large body, announced": (150, self.announced, False),
            "large body, chunked": (60, self.chunked, False),
            "bad token, endless body": (40, self.endless, False),
            "slow body": (200, self.slow_body, True),
            "bad token, slow body": (200, self.slow_refused, True),
            "slow head": (200, self.slow_head, True),
            "idle connection": (100, self.idle, True),
        }

    async def forged(self) -> str:
        text = "".join(self._random.choices("abcdefgh_-", k=40))
        return await self._post(f"apiframe/{text}.{text[:6]}.{text[:27]}", b"{}")

    async def mangled(self) -> str:
        token = next(self._leaked)
        place = self._random.randrange(len(token))
        return await self._post(
            f"apiframe/{token[:place]}{'A' if token[place] != 'A' else 'B'}{token[place + 1 :]}", b"{}"
        )

    async def foreign(self) -> str:
        gateway = self._random.choice(["api-in-one", "nobody", "APIFRAME", "%61piframe%00"])
        return await self._post(f"{gateway}/{next(self._leaked)}", b"{}")

    async def dead(self) -> str:
        return await self._post(f"apiframe/{next(self._dead)}", b"{}")

    async def odd(self) -> str:
        odd = [
            "",
            "%00",
            "..%2f..%2fv1%2fjobs",
            "a" * 9000,
            "." * 250,
            "%ff%fe",
            "x/" * 500,
            "eyJ9.aaaa.bbbb/more",
        ]
        return await self._post(f"apiframe/{self._random.choice(odd)}", b"{}")

    async def garbage_signature(self) -> str:
        garbage = [
            "sha256=" + "0" * 64,
            "sha256=,v1 zz==",
            "sha256=",
            "=",
            "\u00ff" * 200,
            "sha256=" + "f" * 9000,
        ]
        header = f"x-webhook-signature: {self._random.choice(garbage)}\r\n"
        return await self._post(f"apiframe/{next(self._leaked)}", b'{"status": "COMPLETED"}', header)

    async def deep(self) -> str:
        body = self._random.choice([b'{"a":' + b"[" * 300_000, b'{"a":[' + b"{}," * 100_000 + b"1]}"])
        return await self._post(f"apiframe/{next(self._leaked)}", body)

    async def announced(self) -> str:
        head = _head(f"apiframe/{next(self._leaked)}", f"content-length: {self._attack.over_bytes}\r\n")
        return await self._send([head, *[b" " * 65536] * 4])

    async def chunked(self) -> str:
        head = _head(f"apiframe/{next(self._leaked)}", "transfer-encoding: chunked\r\n")
        pieces = self._attack.over_bytes // 65536 + 1
        return await self._send([head, *[b"10000\r\n" + b" " * 65536 + b"\r\n"] * pieces])

    async def endless(self) -> str:
        head = _head("apiframe/a.b.c", "content-length: 99999999999\r\n")
        return await self._send([head, *[b" " * 65536] * 256])

    async def slow_body(self) -> str:
        return await self._drip(_head(f"apiframe/{next(self._leaked)}", "content-length: 4096\r\n"))

    async def slow_refused(self) -> str:
        return await self._drip(_head("apiframe/a.b.c", "content-length: 4096\r\n"))

    async def slow_head(self) -> str:
        return await self._drip(f"POST /callbacks/apiframe/{next(self._leaked)} HTTP/1.1\r\nx-a: ".encode())

    async def idle(self) -> str:
        return await self._drip(b"", drop=b"")

    async def _post(self, path: str, body: bytes, headers: str = "") -> str:
        return await self._send(
            [_head(path, f"{headers}content-length: {len(body)}\r\nconnection: close\r\n") + body]
        )

    async def _send(self, pieces: list[bytes]) -> str:
        """Send everything, if that is let happen, and read the answer."""
        async with self._limit:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._attack.port)
            try:
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            except ConnectionError:
                pass  # it has heard enough; the answer may be here all the same
            return await _answer(reader, writer)

    async def _drip(self, begun: bytes, drop: bytes = b"a") -> str:
        """Send a beginning, and then a byte each half second until the other side has had enough."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._attack.port)
        answer = asyncio.create_task(_answer(reader, writer, whole=True))
        writer.write(begun)
        while not (await asyncio.wait([answer], timeout=0.5))[0]:
            writer.write(drop)
        return answer.result()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, whole: bool = False) -> str:
    """The status of the answer; with `whole` only once the other side has closed the connection."""
    line = b""
    try:
        async with asyncio.timeout(PATIENCE_S):
            line = await reader.readline()
            while whole and await reader.read(65536):
                pass
    except ConnectionError:
        pass
    except TimeoutError:
        return "open"
    finally:
        writer.close()
    return line.split()[1].decode() if line else "closed"


def _head(path: str, headers: str) -> bytes:
    return f"POST /callbacks/{path} HTTP/1.1\r\nhost: darkroom.example\r\n{headers}\r\n".encode("latin-1")


async def carry_out(attack: Attack) -> Told:
    """Send everything, spread over the attack's seconds, and wait for all answers."""
    attacker, told = Attacker(attack), Told(monotonic())
    answers: dict[str, Counter[str]] = defaultdict(Counter)

    async def one(kind: str, at: float, send: Callable[[], Awaitable[str]]) -> None:
        await asyncio.sleep(max(0.0, told.began + at - monotonic()))
        answers[kind][await send()] += 1

    def everything() -> Iterator[Any]:
        for kind, (count, send, _slow) in attacker.plan().items():
            for number in range(count):
                yield one(kind, attack.seconds * (number + 0.5) / count, send)

    await asyncio.gather(*everything())
    told.ended = monotonic()
    told.answers = {kind: dict(counted) for kind, counted in answers.items()}
    return told


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(carry_out(Attack(**json.load(sys.stdin)))))))
