"""Keep a circuit breaker for each gateway and image host, so that a broken one blocks nothing else.

A circuit is closed while its gateway or host works. It opens after failures in a row, or at once where a
gateway refuses our key, wants credits or asks for time. After its pause it is half-open: one try is let
through, which closes it or opens it for longer. The state is in the ledger, for every worker and restart.
"""

from dataclasses import dataclass, replace
from typing import Literal

import structlog

from receiver import errors
from receiver.errors import DarkroomError
from receiver.redaction import Redactor
from receiver.schedule import Timing
from storage.ledger.circuits import Circuits, Kind
from storage.models import Circuit, Clock, rfc3339

log = structlog.get_logger("darkroom.breaker")

Step = Literal["send", "ask", "download"]

PAUSING = (errors.GatewayUnauthorized, errors.OutOfCredits)
"""What only an operator can fix."""
OUTAGE = (errors.GatewayUnavailable, errors.OutcomeUnknown, errors.GarbledAnswer)
"""What says that a gateway is broken; any other answer says that it works."""
PAUSED = frozenset(kind.code for kind in PAUSING)


@dataclass(frozen=True, slots=True)
class CircuitBreaker:
    """The circuits. Thread-safe."""

    circuits: Circuits
    timing: Timing
    redactor: Redactor
    clock: Clock

    def asking_waits_ms(self, gateway: str) -> int:
        """Return how long a gateway may not be polled from now, in milliseconds; 0 if it may."""
        circuit = self.circuits.read("gateway", gateway)
        out_of_credits = circuit is not None and circuit.code == errors.OutOfCredits.code
        return 0 if out_of_credits else self._left_ms(circuit)

    def sending_waits_ms(self, gateway: str) -> int:
        """Return how long nothing may be submitted to a gateway from now, in milliseconds; 0 if it may."""
        return self._left_ms(self.circuits.read("gateway", gateway))

    def not_sent(self, gateway: str) -> None:
        """Let another try through a half-open circuit: the one that was let through was not sent."""
        if self.circuits.read("gateway", gateway) is not None:
            self.circuits.end_probe("gateway", gateway)

    def gateway_answered(self, gateway: str, step: Step) -> None:
        """Close the circuit of a gateway that answered as it should."""
        circuit = self.circuits.read("gateway", gateway)
        # Asking costs no credits and may need another right, so it does not disprove what sending met.
        if circuit is not None and (step in {"send", circuit.step} or circuit.code not in PAUSED):
            self._close(circuit)

    def gateway_failed(self, gateway: str, step: Step, error: errors.GatewayError) -> None:
        """Count a failure of a gateway: an error, or no answer at all."""
        if isinstance(error, (*PAUSING, *OUTAGE, errors.RateLimited)):
            self._failed("gateway", gateway, step, error)
        else:
            self.gateway_answered(gateway, step)

    def host_waits_ms(self, host: str) -> int:
        """Return how long nothing may be downloaded from a host, in milliseconds; 0 if it may."""
        circuit = self._of_host(host)
        if circuit is None or circuit.retry_at is None:
            return 0
        waits = max(circuit.retry_at, circuit.probe_until or 0) - self.clock()
        if waits > 0:
            return waits
        # Half-open: one try is let through.
        return 0 if self.circuits.begin_probe("image_host", host) else int(self.timing.breaker_first * 1000)

    def host_answered(self, host: str, error: errors.ImageError | None) -> None:
        """Close the circuit of an image host, or count a failure."""
        if isinstance(error, errors.ImageUnavailable):
            self._failed("image_host", host, "download", error)
        elif (circuit := self._of_host(host)) is not None:
            self._close(circuit)

    def paused(self) -> dict[str, str]:
        """Return the paused gateways, each with the error code of the reason."""
        return {circuit.name: circuit.code for circuit in self._open() if circuit.kind == "gateway"}

    def warnings(self) -> dict[str, str]:
        """Return a warning for each open circuit: why, and until when it is paused."""
        return {
            circuit.name: f"{circuit.message} Paused until {rfc3339(circuit.retry_at)}, then tried again."
            for circuit in self._open()
            if circuit.retry_at is not None
        }

    def _of_host(self, host: str) -> Circuit | None:
        return self.circuits.read("image_host", host) if self.circuits.has("image_host", host) else None

    def _left_ms(self, circuit: Circuit | None) -> int:
        return 0 if circuit is None or circuit.retry_at is None else max(0, circuit.retry_at - self.clock())

    def _open(self) -> list[Circuit]:
        return [circuit for circuit in self.circuits.every() if circuit.retry_at is not None]

    def _close(self, circuit: Circuit) -> None:
        self.circuits.close(circuit.kind, circuit.name)
        if circuit.retry_at is not None:
            log.info("circuit closed", kind=circuit.kind, name=circuit.name, after=circuit.failures)

    def _failed(self, kind: Kind, name: str, step: Step, error: DarkroomError) -> None:
        message = self.redactor.text(str(error))

        def following(before: Circuit | None, now: int) -> Circuit:
            first = Circuit(kind, name, step, error.code, message, error.at_fault, 1, now, None)
            return self._following(first, before, error, now)

        circuit = self.circuits.failed(kind, name, following)
        if circuit.retry_at is not None:
            seconds, failures = round((circuit.retry_at - self.clock()) / 1000, 1), circuit.failures
            log.warning(
                "circuit open", kind=kind, name=name, code=circuit.code, failures=failures, seconds=seconds
            )

    def _following(self, first: Circuit, before: Circuit | None, error: DarkroomError, now: int) -> Circuit:
        if before is not None and before.retry_at is not None and before.retry_at > now:
            # Requests that were under way when it opened are one failure, not several.
            return before
        # What only an operator can fix and what passes by itself are counted apart.
        goes_on = before is not None and (before.code in PAUSED) == (first.code in PAUSED)
        if before is not None and goes_on:
            first = replace(first, failures=before.failures + 1, since=before.since)
        waits = self.timing.pause if isinstance(error, PAUSING) else self.timing.breaker_wait
        wait_s = waits(first.failures)
        if isinstance(error, errors.RateLimited):
            wait_s = max(self.timing.later(error.retry_after_s), wait_s)
        return replace(first, retry_at=now + int(wait_s * 1000) if wait_s else None)
