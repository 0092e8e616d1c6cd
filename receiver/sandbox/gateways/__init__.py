"""The registry of the stand-ins: each has a line here, and a file of its own.

A new one is a subclass of `StandIn` (see `core/stand_in.py`; `bria.py` is a short one), written from the
gateway's documents, and an entry in `tests/sandbox/test_gateways.py`, which uses it as these documents say.
"""

from collections.abc import Iterable

from receiver.sandbox.core.stand_in import StandIn
from receiver.sandbox.gateways.api_in_one import ApiInOne
from receiver.sandbox.gateways.apiframe import Apiframe
from receiver.sandbox.gateways.bfl import BlackForestLabs
from receiver.sandbox.gateways.bria import Bria
from receiver.sandbox.gateways.fal import Fal
from receiver.sandbox.gateways.ideogram import Ideogram
from receiver.sandbox.gateways.kie import Kie
from receiver.sandbox.gateways.magnific import Magnific
from receiver.sandbox.gateways.replicate import Replicate
from receiver.sandbox.gateways.runpod import RunPod
from receiver.sandbox.gateways.runware import Runware
from receiver.sandbox.gateways.wavespeed import WaveSpeed

STAND_INS: tuple[type[StandIn], ...] = (
    Apiframe,
    ApiInOne,
    Replicate,
    WaveSpeed,
    Bria,
    Kie,
    Ideogram,
    Runware,
    Magnific,
    RunPod,
    BlackForestLabs,
    Fal,
)
"""In the order in which a path is looked for: those with a path that could be any come last."""

NAMES = tuple(stand_in.name for stand_in in STAND_INS)


def stand_ins(names: Iterable[str] = NAMES) -> tuple[StandIn, ...]:
    """Return the stand-ins of these names. Raises KeyError for a gateway that has none."""
    known = {stand_in.name: stand_in for stand_in in STAND_INS}
    wanted = {name: known[name] for name in names}
    return tuple(stand_in() for name, stand_in in known.items() if name in wanted)
