"""A stand-in for the gateways, over real HTTP: for the demo, development, tests and benchmarks.

It is written from the gateways' own documents and imports nothing of the adapters, so that the two check
each other. Each gateway is one file below `gateways`; `core` is what they share.
"""

from receiver.sandbox.core.config import Account, SandboxConfig
from receiver.sandbox.core.jobs import CallbackSent, JobReport
from receiver.sandbox.server import SandboxServer

__all__ = ["Account", "CallbackSent", "JobReport", "SandboxConfig", "SandboxServer"]
