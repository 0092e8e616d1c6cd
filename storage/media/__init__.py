"""Media type, size and completeness of an image, from its headers: nothing here decodes a pixel."""
