"""List the models that gateways are known to have, with what each takes and costs."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from receiver.gateways.base import Gateway
from storage.models import JobRequest

RATIOS = ("1:1", "4:3", "3:4", "3:2", "2:3", "16:9", "9:16", "21:9")
"""The usual aspect ratios."""

_PROMPT = "any prompt"


@dataclass(frozen=True, slots=True)
class Offer:
    """A model of a gateway."""

    gateway: str
    model: str
    takes: tuple[str, ...]
    """The fields of a submission that it supports, beside the prompt."""
    aspect_ratios: tuple[str, ...]
    """The usual aspect ratios that it takes."""
    estimate: float | None
    """Credits for one image by the published price; None if unknown."""


def offers(gateways: Iterable[Gateway]) -> Iterator[Offer]:
    """Yield the known models of each gateway."""
    for gateway in gateways:
        for model in gateway.models:
            lacks = gateway.unsupported(asking_for_everything(model))
            takes = tuple(name for name in _FIELDS if name not in lacks)
            ratios = tuple(
                ratio for ratio in RATIOS if "aspect_ratio" in takes and _fits(gateway, model, ratio)
            )
            yield Offer(gateway.name, model, takes, ratios, gateway.estimate(JobRequest(model, _PROMPT)))


def asking_for_everything(model: str) -> JobRequest:
    """Return a request with every field that a gateway may not support."""
    return JobRequest(model, _PROMPT, negative_prompt="x", aspect_ratio=RATIOS[0], num_images=2, seed="1")


_FIELDS = ("negative_prompt", "aspect_ratio", "num_images", "seed")


def _fits(gateway: Gateway, model: str, ratio: str) -> bool:
    faults = gateway.faults(JobRequest(model, _PROMPT, aspect_ratio=ratio))
    return all(fault["field"] != "aspect_ratio" for fault in faults)
