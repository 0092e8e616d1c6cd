"""Call a running Darkroom from Python: `from receiver.client import Darkroom`.

The HTTP client of the API and what the command line shares with it. It may import `receiver.query` for the
names of filters, and nothing else of the service.
"""

from receiver.client.client import Darkroom
from receiver.client.events import Event
from receiver.client.http import ApiError, ClientError, Damaged, Unreachable

__all__ = ["ApiError", "ClientError", "Damaged", "Darkroom", "Event", "Unreachable"]
