"""Define the JSON of the API: one frozen pydantic model for each resource.

The service builds them from storage values with `of`, `/openapi.json` and its examples are generated from
them, and the Python client returns them. Of storage they load `storage.models` only, so that a client needs
no database.
"""
