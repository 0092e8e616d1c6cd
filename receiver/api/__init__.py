"""The HTTP API: one file a resource, the OpenAPI document, and the documentation pages in `docs/`."""
