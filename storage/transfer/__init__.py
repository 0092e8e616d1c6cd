"""Copy a ledger from SQLite to PostgreSQL and compare the two."""
