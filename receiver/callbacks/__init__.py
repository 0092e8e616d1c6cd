"""The webhook endpoint: signed callback URLs, verification, and the group commit of deliveries.

May import `http/` and `gateways/`. What a callback means for its job is decided in `jobs/reconcile.py`.
"""
