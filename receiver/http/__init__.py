"""What every HTTP request passes: server, middleware, routing, authentication, rate limits, bodies, ranges.

Knows no resource: `api/`, `gallery/` and `callbacks/` import it, never the reverse.
"""
