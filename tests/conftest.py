from __future__ import annotations

pytest_plugins = [
    "tests.turns",
    "tests.services",
    "tests.postgres",
    "tests.live",
    "tests.running",
    "tests.ledgers",
    "tests.galleries",
]
