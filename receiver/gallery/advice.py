"""What helps a job that failed, is partial, or waits: a sentence for each code, for people."""

from __future__ import annotations

from storage.models import JobError, Status

AGAIN = "Retry it: the gateway is asked for the result once more, which costs nothing."
NEW = "Only a new submission can help, which may be charged. Change what it asks for first, if that is why."

BY_CODE = {
    "no_answer": AGAIN,
    "submission_unconfirmed": "Look at the gateway's own list of jobs. If it is not there, submit it again.",
    "generation_failed": NEW,
    "no_images": AGAIN,
    "archive_conflict": "Something else is in its place in the bucket. Look at both objects, then retry it.",
    "archive_corrupt": "The bucket gave back other bytes than it was given. Look after it, then retry it.",
    "gateway_job_taken": "Ask the gateway's support: it gave the same id twice. Then submit it again.",
    "storage_unavailable": "The bucket cannot be used now; see Status for the reason. The job waits for it.",
    "unknown_gateway": "Set an API key for this gateway again. The job waits for it.",
    "gateway_refused": "The gateway does not take this request. Make it again without what it complains of.",
    "gateway_unauthorized": "Check the gateway's API key in the settings. The job goes on by itself.",
    "out_of_credits": "Add credits to the account at the gateway. The job goes on by itself.",
    "rate_limited": "Nothing is to be done: the gateway asked for time, and gets it.",
    "gateway_unavailable": "Nothing is to be done: it is tried again until the gateway is back.",
    "outcome_unknown": "It may have been taken: its callback can still come. After that, submit it again.",
    "submitted_before": "An earlier try was taken after all: its callback can still come.",
    "unknown_gateway_job": "The gateway does not know this job any more. Only a new submission can help.",
    "garbled_answer": "The gateway answered what cannot be read. If it goes on, its API may have changed.",
    "image_expired": "Retry it: the gateway is asked for a fresh link, which costs nothing.",
    "image_unavailable": "Retry it once the host of the image is back; it costs nothing.",
    "forbidden_address": "The gateway named an address that no download may go to. Ask its support.",
    "image_too_large": "Raise DARKROOM_DOWNLOAD__MAX_BYTES, __MAX_PIXELS or __MAX_FRAMES, then retry it.",
    "image_truncated": "Retry it: the image is downloaded again, which costs nothing.",
    "not_an_image": "Retry it: perhaps an image comes now. It costs nothing.",
}
"""By an error's code; the README says what each means."""

BY_FAULT = {
    "request": "Make it again with what is wrong changed.",
    "gateway": AGAIN,
    "image": AGAIN,
    "archive": "Look after the bucket, then retry it.",
    "operator": "Whoever runs this Darkroom has to look after it.",
}

STATES = {
    Status.QUEUED: "It is on disk here, and waits to be sent.",
    Status.SUBMITTING: "It is on its way to the gateway.",
    Status.RUNNING: "The gateway has it.",
    Status.READY: "The gateway is done; the images are being downloaded.",
    Status.ARCHIVED: "Every image and the record are in the bucket, compared there with what came.",
    Status.PARTIAL: "Some images are in the bucket; the others could not be had.",
    Status.FAILED: "No image could be had.",
}
"""What each status means, in a sentence."""


def advice(error: JobError) -> str:
    """What helps, in a sentence."""
    return BY_CODE.get(error.code) or BY_FAULT.get(error.at_fault, BY_FAULT["operator"])
