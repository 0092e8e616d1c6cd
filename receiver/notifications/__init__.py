"""Outgoing webhooks: tell an application that a job has ended, signed by Standard Webhooks, with retries."""
