"""Read botocore's descriptions of S3, and of what finds keys for it, in a third of the memory and time.

botocore reads where each of 400 services of AWS is, and what each field means, anew for every session. A
client of S3 needs little of that; it is read once, and can be before processes are forked that share it.
"""

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
from botocore.loaders import JSONFileLoader, Loader

SERVICES = ("s3", "signin", "sso", "sso-oidc", "sts")
"""S3, and those that are asked for keys."""
_PLACES = frozenset({*SERVICES, "oidc", "portal.sso"})
"""As `endpoints.json` has them; any other is found by the pattern of its partition."""
_OPENED: Mapping[str, Callable[[Path], bytes]] = {
    ".json": Path.read_bytes,
    ".json.gz": lambda path: gzip.decompress(path.read_bytes()),
}


class _Files(JSONFileLoader):
    def load_file(self, file_path: str) -> Any:
        """Return what a file has, given without its ending; None if there is none."""
        for ending, read in _OPENED.items():
            path = Path(file_path + ending)
            if path.is_file():
                return _needed(orjson.loads(read(path)))
        return None


class _Data(Loader):
    def list_available_services(self, _type_name: str) -> list[str]:
        """Return the services that are used here: to look for all takes longer than to read them."""
        return list(SERVICES)


DATA = _Data(file_loader=_Files())
"""The descriptions, each read at its first use."""


def preload() -> None:
    """Read what a client of S3 takes."""
    for kind in ("service-2", "endpoint-rule-set-1"):
        DATA.load_service_model("s3", kind)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        DATA.load_data(name)


def _needed(value: Any) -> Any:
    """Leave out texts for people, and where services are that are not used here."""
    if isinstance(value, list):
        return [_needed(item) for item in value]
    if not isinstance(value, dict):
        return value
    partitions = isinstance(value.get("partitions"), list)
    kept: dict[str, Any] = {
        name: "" if name == "documentation" and isinstance(item, str) else _needed(item)
        for name, item in value.items()
    }
    for partition in kept["partitions"] if partitions else ():
        if "services" in partition:
            partition["services"] = {
                name: place for name, place in partition["services"].items() if name in _PLACES
            }
    return kept
