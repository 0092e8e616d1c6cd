"""The life of a job: claim it, submit it, learn its result, archive its images.

`worker.py` leases due jobs and runs the step of each one's status; a step is a file. May import
`gateways/`, `download/`, `notifications/` and `storage`; knows no HTTP edge.
"""
