"""The ledger: every write to the SQL database (SQLite or PostgreSQL), its schema and its migrations.

`ledger.py` is the API; each other file is one table or one idea of it. May import the leaves of `storage`.
"""
