"""Which gateways Darkroom can use through a sandbox, and a submission for each."""

from collections.abc import Iterator, Mapping
from typing import Any

from receiver.gateways.registry import GatewayGroup, Gateways
from receiver.sandbox import SandboxServer


def settings_of(sandbox: SandboxServer, gateways: GatewayGroup | None = None) -> dict[str, dict[str, str]]:
    """Return the settings that lead to a sandbox, by gateway, of those gateways that Darkroom has.

    `gateways`: with those that are declared; by default the built-in ones.
    """
    ours = {name: type(group).model_fields for name, group in vars(gateways or Gateways()).items()}
    return {
        gateway: {name: value for name, value in settings.items() if name in ours[gateway]}
        for gateway, settings in sandbox.settings().items()
        if gateway in ours
    }


def one_prompt_each(sandbox: SandboxServer) -> Iterator[Mapping[str, Any]]:
    """Yield a submission to each of these gateways, as arguments of `Darkroom.submit`."""
    known = settings_of(sandbox)
    for gateway in sandbox.gateways:
        if gateway.name.replace("-", "_") in known:
            asked = {"gateway": gateway.name, "model": gateway.model, "prompt": PROMPT}
            yield asked | ({"params": gateway.params()} if gateway.params() else {})


PROMPT = "A lighthouse on a cliff at dusk, long exposure, film grain"
