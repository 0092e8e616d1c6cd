"""Thumbnails: cached in the bucket, made by a pool of confined child processes."""
