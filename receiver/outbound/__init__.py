"""Decide how requests leave: which authorities TLS trusts, and which proxy they go through."""
