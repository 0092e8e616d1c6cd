"""JSON in and out of the API: request bodies, responses, and how they are made of what is stored."""
