"""The hosted image gateways: one adapter a file, none of which does I/O or imports another.

`base.py` has their base class, `registry.py` the list, `client.py` sends what an adapter builds.
"""
