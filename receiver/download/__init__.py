"""Download images from untrusted URLs: SSRF checks, a pinned transport, limits on bytes and time.

Imports nothing of the service but its errors.
"""
