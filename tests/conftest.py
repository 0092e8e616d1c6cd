"""Begin a test run: without the settings of whoever runs it, and with the plugins of all tests."""

import os
import signal

TOOLS = ("DARKROOM_TEST_", "DARKROOM_FAULTS_")
"""What the variables begin with that the tests themselves read."""

for name in [name for name in os.environ if name.startswith("DARKROOM_") and not name.startswith(TOOLS)]:
    del os.environ[name]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell in the background has its children ignore Ctrl-C, which commands that are tested must hear.
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
