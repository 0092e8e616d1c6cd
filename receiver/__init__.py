"""Darkroom's service: submit jobs to image gateways, verify their callbacks, archive the images.

A folder is a feature; `app.py` connects them. Reading order, from the bottom: what a folder imports stands
before it.

    errors, redaction, signatures, schedule, cache      leaves that everything may import
    schemas/        JSON in and out of the API          query/      the search language
    download/       SSRF-safe downloads                 settings    environment variables, validated
    gateways/       one adapter a file, no I/O          telemetry/  logs and metrics
    http/           what every request passes           callbacks/  the webhook endpoint
    thumbnails/     made in confined processes          notifications/  outgoing webhooks
    jobs/           the worker and its steps            api/        one file a resource
    gallery/        one file a page                     service, app  the whole, connected
    cli/ demo/      what people start                   client/ export/  what programs use
    sandbox/        a stand-in for the gateways, which imports none of the above but errors

`receiver` may import `storage`; `storage` never imports `receiver`.
"""
