"""Thumbnails as they lie in the bucket: derived, written once, and made anew whenever they do not fit."""

from __future__ import annotations

import hashlib
import io

from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore
from storage.errors import Conflict, Corrupt, NotFound
from storage.models import Output

MAX_BYTES = 1024 * 1024
MEDIA_TYPE = "image/webp"


class ThumbnailStore:
    """The thumbnails in the bucket. Thread-safe; raises Unavailable as the store does."""

    def __init__(self, store: ObjectStore, keys: Keys, recipe: str) -> None:
        """`recipe` names how thumbnails are made now: those that were made otherwise count for nothing."""
        self._store = store
        self._keys = keys
        self.recipe = recipe

    def read(self, output: Output) -> bytes | None:
        """Read the thumbnail of an output; None if there is none that fits. One that does not is deleted."""
        key = self._keys.thumbnail(output.id)
        try:
            with self._store.stream(key) as stream:
                metadata, said = stream.object.metadata, self._metadata(output)
                # A store that keeps no metadata says nothing against it.
                if stream.length <= MAX_BYTES and all(
                    metadata.get(name, said[name]) == said[name] for name in said
                ):
                    return b"".join(stream.chunks)
        except NotFound:
            return None
        except Corrupt:
            pass
        self._store.delete(key)
        return None

    def keep(self, output: Output, thumbnail: bytes) -> None:
        """Store a thumbnail; whoever was faster has stored one as good."""
        try:
            self._store.put_new(
                self._keys.thumbnail(output.id),
                io.BytesIO(thumbnail),
                size=len(thumbnail),
                sha256=hashlib.sha256(thumbnail).hexdigest(),
                content_type=MEDIA_TYPE,
                metadata=self._metadata(output),
            )
        except Conflict:
            return

    def _metadata(self, output: Output) -> dict[str, str]:
        return {"darkroom-image-sha256": output.sha256, "darkroom-thumbnail-recipe": self.recipe}
