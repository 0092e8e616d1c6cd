"""What image is this: media type, size and completeness, from its first bytes, without decoding it."""
