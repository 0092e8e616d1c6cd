"""Persistence: the ledger (SQL: jobs, deliveries, outputs) and the archive (bucket: images, records).

    models, errors, paging, text, urls     leaves
    ledger/     every write to the database, and its schema and migrations
    search/     every query over jobs and outputs
    archive/    objects and records in the bucket
    media/      type, size and completeness of an image
    transfer/   move a ledger from SQLite to PostgreSQL

Imports nothing of `receiver`.
"""
