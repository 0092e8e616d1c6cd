"""The page `/docs`, made from the OpenAPI document."""
