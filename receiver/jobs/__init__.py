"""The life of a job: claim it, submit it, learn its result, archive its images.

`worker.py` leases due jobs, runs the step of each one's status (`steps.py`), and writes the `Move` or
`Postpone` that it returns. May import `callbacks/`, `gateways/`, `download/` and `storage`, but no routes.
"""
