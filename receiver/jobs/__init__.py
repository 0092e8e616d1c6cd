"""The life of a job: claim it, submit it, learn its result, archive its images.

`worker.py` leases due jobs, runs the step of each one's status (`steps.py`), and writes the `Move` or
`Postpone` that it returns. One move is written by its step: to `submitting`, before the request is sent.
May import `callbacks/`, `gateways/`, `download/` and `storage`, but no routes.
"""
