pytest_plugins = [
    "tests.support.selection",
    "tests.support.turns",
    "tests.support.services",
    "tests.support.postgres",
    "tests.support.live",
    "tests.support.running",
    "tests.support.raw_server",
    "tests.support.ledgers",
    "tests.support.galleries",
    "tests.faults.table",
]
