"""Queries over jobs and outputs: filters, paging, facets and sums of credits. Reads only."""
