"""What a query finds, written out: as a table, or with its images and records."""
