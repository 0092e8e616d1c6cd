"""Queries over jobs and outputs: filters, keyset paging, facets and usage. Reads only."""
