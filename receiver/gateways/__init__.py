"""The hosted image gateways: one adapter a file, none of which does I/O or imports another.

`base.py` has the base classes of adapters and of their settings, `registry.py` the list, `client.py` sends
what an adapter builds. A new gateway is a file like `api_in_one.py`, with its settings and its adapter, one
line in `registry.py`, and its messages as they are on the wire in `tests/samples/`.
"""
