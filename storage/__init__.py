"""What Darkroom keeps: the ledger (SQL: jobs, deliveries, outputs) and the archive (bucket: images, records).

    models, errors, paging, text, urls     leaves
    ledger/     every write to the database, and its schema and migrations
    search/     every query over jobs and outputs
    archive/    objects and records in the bucket
    media/      what an image is, from its first bytes
    transfer/   move a ledger from SQLite to PostgreSQL

Imports nothing of `receiver`.
"""
