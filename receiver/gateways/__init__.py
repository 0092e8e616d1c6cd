"""The hosted image gateways: a table each, in a file of its own, which does no I/O and imports no other.

A new gateway is such a file, one line in `registry.py`, its messages as they are on the wire in
`tests/samples/<name>/`, and a file in `receiver/sandbox/gateways/`. The file declares a `Table` (see
`table.py`) and a subclass of `Adapter` that names it; what is odd about the gateway is a method of that
class. Settings, help, `GET /v1/models`, the contract tests and the documents follow from the registry.
`base.py` is the port that the rest of the service sees, `client.py` sends what an adapter builds.
"""
