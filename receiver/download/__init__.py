"""Download images from URLs that strangers chose: SSRF rules, a checked transport, limits on bytes and time.

Imports nothing of the service but its errors.
"""
