"""Return advice for a job that failed, is partial, or waits: one sentence per error code."""

from storage.models import JobError, Status

AGAIN = "Retry it: Darkroom asks the gateway for the result again, which costs nothing."
NEW = "Only a new submission can help, which may be charged. If the request is the reason, change it first."

BY_CODE = {
    "no_answer": AGAIN,
    "submission_unconfirmed": (
        "Look at the gateway's own list of jobs. If this job is not there, submit it again."
    ),
    "generation_failed": NEW,
    "no_images": AGAIN,
    "result_expired": NEW,
    "image_missing": "Restore the image from a backup of the bucket, or make it again.",
    "ledger_incomplete": "Restore the ledger: see the Status page. Then the job continues automatically.",
    "archive_conflict": "Another object has its key in the bucket. Compare the two, then retry it.",
    "archive_corrupt": (
        "The bucket returned different bytes than were stored. Check the bucket, then retry it."
    ),
    "gateway_job_taken": "The gateway used one id for two jobs: ask its support. Then submit it again.",
    "image_refused": (
        "Change what its message names: the policy or the limits of the bucket, or the key template. Then it "
        "is stored automatically, as long as the gateway keeps the image."
    ),
    "record_refused": (
        "Change what its message names, such as the policy of the bucket. Then it is stored automatically."
    ),
    "storage_unavailable": (
        "The bucket cannot be used now; the reason is on the Status page. The job continues when it is back."
    ),
    "unknown_gateway": "Set an API key for this gateway again; then the job continues.",
    "gateway_refused": "The gateway refused this request. Correct what its message names and make it again.",
    "gateway_unauthorized": (
        "Check the gateway's API key in the settings. The job then continues automatically."
    ),
    "out_of_credits": "Add credits to the account at the gateway. The job then continues automatically.",
    "rate_limited": "Nothing to do: the gateway limits the rate, and the job is retried when it allows.",
    "gateway_unavailable": "Nothing to do: it is retried until the gateway is back.",
    "outcome_unknown": (
        "The gateway may have accepted it, so its callback can still come. If it does not, submit it again."
    ),
    "submitted_before": "The gateway accepted an earlier try, so its callback can still come.",
    "unknown_gateway_job": "The gateway no longer knows this job. Only a new submission can help.",
    "garbled_answer": "The gateway sent an unreadable answer. If this continues, its API may have changed.",
    "image_expired": "Retry it: Darkroom asks the gateway for a fresh link, which costs nothing.",
    "image_unavailable": "Retry it when the image host is back; that costs nothing.",
    "link_refused": (
        "The image host refuses the link, and fresh ones too. See whether it lets this machine's network in."
    ),
    "forbidden_address": (
        "The gateway named an address that downloads may not reach (SSRF protection). The message says what "
        "would allow it; the image is then downloaded automatically."
    ),
    "unknown_image_host": (
        "If this host is the gateway's, add it to the gateway's setting __IMAGE_HOSTS. The image is then "
        "downloaded automatically."
    ),
    "image_too_large": "Raise DARKROOM_DOWNLOAD__MAX_BYTES or __MAX_PIXELS, then retry it.",
    "image_truncated": "Retry it: the image is downloaded again, which costs nothing.",
    "not_an_image": "Retry it: the link may return an image now. That costs nothing.",
}
"""By error code; `/docs` lists what each means."""

BY_FAULT = {
    "request": "Correct the request and make it again.",
    "gateway": AGAIN,
    "image": AGAIN,
    "archive": "Check the bucket, then retry it.",
    "operator": "The operator of this Darkroom has to fix this.",
}

STATES = {
    Status.QUEUED: "Saved here, waiting to be sent to the gateway.",
    Status.SUBMITTING: "Being sent to the gateway.",
    Status.RUNNING: "The gateway is working on it.",
    Status.READY: "The gateway has finished; the images are being downloaded.",
    Status.ARCHIVED: "Every image and the record are in the bucket, verified against what was downloaded.",
    Status.PARTIAL: "Some images are in the bucket; the others could not be downloaded.",
    Status.FAILED: "No images were produced.",
    Status.CANCELLED: "Cancelled before it was sent to the gateway, so it cost nothing.",
}
"""One sentence per job status."""


def advice(error: JobError) -> str:
    """Return what to do about an error, in one sentence."""
    return BY_CODE.get(error.code) or BY_FAULT.get(error.at_fault, BY_FAULT["operator"])
