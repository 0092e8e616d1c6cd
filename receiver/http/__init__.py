"""Serve HTTP: server, middleware, routing, authentication, sessions, limits, ranges.

Knows no resource: `api/`, `gallery/` and `callbacks/` import it, never the reverse.
"""
