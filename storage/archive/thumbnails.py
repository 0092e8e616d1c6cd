"""Cache thumbnails in the bucket: derived, written once, and deleted when outdated."""

import hashlib
import io
from contextlib import suppress
from dataclasses import dataclass

from storage.archive.keys import Keys
from storage.archive.object_store import ObjectStore
from storage.errors import Conflict, Corrupt, Misconfigured, NotFound
from storage.models import Output

MAX_BYTES = 1024 * 1024
MEDIA_TYPE = "image/webp"


@dataclass(frozen=True, slots=True)
class ThumbnailStore:
    """The thumbnails in the bucket. Thread-safe; raises Unavailable as the store does."""

    store: ObjectStore
    keys: Keys
    recipe: str
    """A version of how thumbnails are made: those of another one are outdated."""

    def read(self, output: Output) -> bytes | None:
        """Return the thumbnail of an output; None if there is none. Deletes an outdated one, where it may."""
        key = self.keys.thumbnail(output.id)
        try:
            with self.store.stream(key) as stream:
                metadata, ours = stream.object.metadata, self._metadata(output)
                # Some stores keep no metadata: then it is trusted.
                if stream.length <= MAX_BYTES and all(
                    metadata.get(name, ours[name]) == ours[name] for name in ours
                ):
                    return b"".join(stream.chunks)
        except NotFound:
            return None
        except Corrupt:
            pass
        with suppress(Misconfigured):
            self.store.delete(key)
        return None

    def save(self, output: Output, thumbnail: bytes) -> None:
        """Store a thumbnail, unless another process was faster."""
        try:
            self.store.put_new(
                self.keys.thumbnail(output.id),
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
