"""Turn an answer that is an image itself, or multipart with some, into the JSON that adapters read."""

import io
import json
from base64 import b64encode
from typing import Any

from receiver.download.multipart import NotMultipart, is_multipart, parts
from storage.media.formats import HEAD_BYTES
from storage.media.inspect import ON_REQUEST, is_image


def as_json(content: bytes) -> bytes:
    """Return an answer with its images in base64 beside what else it says, as OpenAI's has them; or as it is.

    https://platform.openai.com/docs/api-reference/images
    """
    head = content[:HEAD_BYTES]
    if is_image(head, also=ON_REQUEST):
        return _answer({}, [content])
    if not is_multipart(head):
        return content
    try:
        found = [content[part.start : part.end] for part in parts(io.BytesIO(content))]
    except NotMultipart:
        return content
    images = [part for part in found if is_image(part[:HEAD_BYTES], also=ON_REQUEST)]
    said: dict[str, Any] = {}
    for part in found:
        said |= _object(part)
    return _answer(said, images) if images else json.dumps(said).encode() if said else content


def _object(text: bytes) -> dict[str, Any]:
    if not text.lstrip().startswith(b"{"):
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _answer(said: dict[str, Any], images: list[bytes]) -> bytes:
    name = "images" if "data" in said else "data"
    return json.dumps({**said, name: [{"b64_json": b64encode(image).decode()} for image in images]}).encode()
