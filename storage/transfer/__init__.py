"""Move a ledger from SQLite to PostgreSQL: copy it, and compare the two."""
