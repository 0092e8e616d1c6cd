"""The ledger: every write to the SQL database, its schema and its migrations. SQLite and PostgreSQL.

`ledger.py` is the API; each other file is one table or one idea of it. May import the leaves of `storage`.
"""
