"""What makes each alert fire: two hours of made-up series, once a minute, and what fires at their end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ON = 'instance="a",job="darkroom"'


def flat(value: float) -> str:
    """The same value for two hours."""
    return f"{value:g}+0x120"


def grows(a_minute: float, begin: float = 0) -> str:
    """A counter, or a gauge, that grows for two hours."""
    return f"{begin:g}{a_minute:+g}x120"


HEALTHY: Mapping[str, str] = {
    f"up{{{ON}}}": flat(1),
    f'darkroom_build_info{{{ON},version="1"}}': flat(1),
    f"process_start_time_seconds{{{ON}}}": flat(1_795_000_000),
    f"process_open_fds{{{ON}}}": flat(60),
    f"process_max_fds{{{ON}}}": flat(1024),
    f'darkroom_steps_failed_total{{{ON},status="ready"}}': flat(3),
    f"darkroom_oldest_unarchived_result_age_seconds{{{ON}}}": flat(3),
    f"darkroom_worker_slots{{{ON}}}": flat(8),
    f"darkroom_worker_away_seconds{{{ON}}}": flat(9),
    f"darkroom_images_missing{{{ON}}}": flat(1),
    f"darkroom_worker_jobs{{{ON}}}": flat(2),
    f"darkroom_jobs_due{{{ON}}}": flat(2),
    f'darkroom_oldest_unfinished_job_age_seconds{{{ON},gateway="g"}}': flat(30),
    f'darkroom_moves_total{{{ON},gateway="g",status="archived"}}': grows(2),
    f'darkroom_moves_total{{{ON},gateway="g",status="failed"}}': grows(0.1),
    f"darkroom_leases_lost_total{{{ON}}}": flat(2),
    f'darkroom_callbacks_unwritten_total{{{ON},reason="ledger"}}': flat(9),
    f'darkroom_callbacks_total{{{ON},gateway="g",outcome="accepted"}}': grows(10),
    f'darkroom_callbacks_total{{{ON},gateway="g",outcome="bad_token"}}': grows(1.5),
    f'darkroom_callbacks_total{{{ON},gateway="g",outcome="bad_signature"}}': grows(0.1),
    f'darkroom_callbacks_total{{{ON},gateway="g",outcome="unknown_job"}}': grows(0.05),
    f'darkroom_callbacks_total{{{ON},gateway="g",outcome="internal"}}': flat(0),
    f'darkroom_callbacks_bad_token_total{{{ON},gateway="g",reason="forged"}}': grows(1.5),
    f'darkroom_results_total{{{ON},gateway="g",found_by="callback"}}': grows(2),
    f'darkroom_results_total{{{ON},gateway="g",found_by="poll"}}': grows(0.2),
    f'darkroom_short_results_total{{{ON},gateway="g"}}': grows(0.1),
    f'darkroom_callback_seconds_bucket{{{ON},gateway="g",le="0.1"}}': grows(10),
    f'darkroom_callback_seconds_bucket{{{ON},gateway="g",le="5"}}': grows(10),
    f'darkroom_callback_seconds_bucket{{{ON},gateway="g",le="+Inf"}}': grows(10),
    f"darkroom_api_requests_refused_total{{{ON}}}": grows(1),
    f'darkroom_gateway_paused{{{ON},gateway="g",code="out_of_credits"}}': flat(0),
    f'darkroom_gateway_paused{{{ON},gateway="g",code="gateway_unavailable"}}': flat(0),
    f'darkroom_gateway_paused{{{ON},gateway="g",code="rate_limited"}}': flat(0),
    f'darkroom_submissions_total{{{ON},gateway="g",outcome="accepted"}}': grows(2),
    f'darkroom_submissions_total{{{ON},gateway="g",outcome="gateway_refused"}}': grows(0.2),
    f'darkroom_submissions_total{{{ON},gateway="g",outcome="outcome_unknown"}}': flat(1),
    f'darkroom_downloads_total{{{ON},gateway="g",outcome="done"}}': grows(4),
    f'darkroom_downloads_total{{{ON},gateway="g",outcome="image_unavailable"}}': grows(0.4),
    f'darkroom_downloads_total{{{ON},gateway="g",outcome="forbidden_address"}}': flat(0),
    f'darkroom_downloads_total{{{ON},gateway="g",outcome="unready"}}': flat(0),
    f'darkroom_jobs_held{{{ON},gateway="g",code="unknown_image_host"}}': flat(0),
    f'darkroom_store_errors_total{{{ON},kind="unavailable"}}': flat(4),
    f'darkroom_store_errors_total{{{ON},kind="misconfigured"}}': flat(0),
    f'darkroom_store_errors_total{{{ON},kind="refused"}}': flat(0),
    f'darkroom_store_errors_total{{{ON},kind="conflict"}}': flat(0),
    f"darkroom_status_balanced{{{ON}}}": flat(1),
    f'darkroom_ledger_errors_total{{{ON},part="worker"}}': flat(5),
    f'darkroom_ledger_errors_total{{{ON},part="wakeup"}}': flat(1),
    f"darkroom_oldest_pending_notification_age_seconds{{{ON}}}": flat(400),
    f"darkroom_notifications_failed{{{ON}}}": flat(2),
    f'darkroom_notifications_total{{{ON},outcome="receiver_forbidden"}}': flat(0),
}
"""A day like any other: some strangers, some refusals, errors that are long over. Nothing fires."""


@dataclass(frozen=True)
class Case:
    """What is otherwise than in `HEALTHY`, and which alerts fire then."""

    changed: Mapping[str, str]
    fire: Sequence[str]


def case(*fire: str, **changed: str) -> Case:
    """Series of `HEALTHY`, each named by its metric and, after two `_`, by one of its labels' values."""
    found = {}
    for short, series in changed.items():
        name, _, value = short.partition("__")
        (key,) = (
            key for key in HEALTHY if key.startswith(f"{name}{{") and (not value or f'="{value}"' in key)
        )
        found[key] = series
    return Case(found, fire)


OLDEST = "darkroom_oldest_unarchived_result_age_seconds"

CASES: Mapping[str, Case] = {
    "nothing": Case({}, ()),
    "no process": Case(dict.fromkeys(HEALTHY, ""), ("DarkroomGone", "DarkroomNoWorkers")),
    "one of two down": Case({'up{instance="b",job="darkroom"}': flat(0)}, ("DarkroomDown",)),
    "restarts": case("DarkroomRestarting", process_start_time_seconds=grows(1)),
    "a restart": case(process_start_time_seconds="1+0x110 2+0x9"),
    "files": case("DarkroomFilesRunningOut", process_open_fds=flat(900)),
    "a step": case("DarkroomStepsFailed", darkroom_steps_failed_total="3+0x112 4+0x7"),
    "500": case("DarkroomCallbacksFailed", darkroom_callbacks_total__internal="0+0x112 1+0x7"),
    "late": case("DarkroomResultsLate", **{OLDEST: grows(60)}),
    "danger": case("DarkroomResultsLate", "DarkroomResultsInDanger", **{OLDEST: grows(60, 20_000)}),
    "a worker that ends again and again": case("DarkroomNoWorkers", darkroom_worker_away_seconds=grows(60)),
    "missing": case("DarkroomImagesMissing", darkroom_images_missing="1+0x100 2+0x19"),
    "no worker": case("DarkroomNoWorkers", darkroom_worker_slots=flat(0), darkroom_worker_jobs=flat(0)),
    "backlog": case("DarkroomBacklogGrowing", darkroom_jobs_due=grows(5)),
    "a backlog that shrinks": case(darkroom_jobs_due=grows(-5, 900)),
    "full": case("DarkroomWorkersFull", darkroom_jobs_due=flat(20), darkroom_worker_jobs=flat(8)),
    "full, and nobody waits": case(darkroom_jobs_due=flat(8), darkroom_worker_jobs=flat(8)),
    "stuck": case("DarkroomJobsStuck", darkroom_oldest_unfinished_job_age_seconds=grows(60, 3000)),
    "failing": case("DarkroomJobsFailing", darkroom_moves_total__failed=grows(1)),
    "leases": case("DarkroomLeasesLost", darkroom_leases_lost_total=grows(0.2)),
    "503": case("DarkroomCallbacksUnwritten", darkroom_callbacks_unwritten_total=grows(1)),
    "tokens": case(
        "DarkroomTokensRefused",
        darkroom_callbacks_total__bad_token=grows(6),
        darkroom_callbacks_bad_token_total=grows(6),
    ),
    "signatures": case("DarkroomSignaturesRefused", darkroom_callbacks_total__bad_signature=grows(1)),
    "unknown jobs": case("DarkroomCallbacksUnreadable", darkroom_callbacks_total__unknown_job=grows(0.2)),
    "missed": case("DarkroomCallbacksMissed", darkroom_results_total__poll=grows(1)),
    "short": case("DarkroomResultsShort", darkroom_short_results_total=grows(0.5)),
    "short for a moment": case(darkroom_short_results_total="0+0x112 2+0x7"),
    "slow": Case(
        {f'darkroom_callback_seconds_bucket{{{ON},gateway="g",le="0.1"}}': grows(9)},
        ("DarkroomCallbacksSlow",),
    ),
    "429": case("DarkroomRequestsRefused", darkroom_api_requests_refused_total=grows(20)),
    "credits": case("DarkroomGatewayNeedsYou", darkroom_gateway_paused__out_of_credits=flat(1)),
    "away": case("DarkroomGatewayAway", darkroom_gateway_paused__gateway_unavailable=flat(1)),
    "away for a moment": case(darkroom_gateway_paused__gateway_unavailable="0+0x112 1+0x7"),
    "time": case("DarkroomGatewayAsksForTime", darkroom_gateway_paused__rate_limited=flat(1)),
    "refused": case("DarkroomSubmissionsRefused", darkroom_submissions_total__gateway_refused=grows(4)),
    "lost": case("DarkroomSubmissionsUnconfirmed", darkroom_submissions_total__outcome_unknown=grows(0.2)),
    "downloads": case("DarkroomDownloadsFailing", darkroom_downloads_total__image_unavailable=grows(3)),
    "no room for images": case("DarkroomDownloadsFailing", darkroom_downloads_total__unready=grows(3)),
    "inwards": case(
        "DarkroomImageAddressForbidden", darkroom_downloads_total__forbidden_address="0+0x100 1+0x19"
    ),
    "held": case("DarkroomResultsHeld", darkroom_jobs_held__unknown_image_host=flat(1)),
    "held for a moment": case(darkroom_jobs_held__unknown_image_host="0+0x112 1+0x7"),
    "bucket away": case("DarkroomBucketAway", darkroom_store_errors_total__unavailable=grows(1)),
    "bucket refuses": case(
        "DarkroomBucketMisconfigured", darkroom_store_errors_total__misconfigured=grows(1)
    ),
    "object refused": case("DarkroomObjectsRefused", darkroom_store_errors_total__refused="0+0x100 1+0x19"),
    "conflict": case("DarkroomArchiveDiffers", darkroom_store_errors_total__conflict="0+0x100 1+0x19"),
    "status": case("DarkroomJobsUnaccounted", darkroom_status_balanced=flat(0)),
    "ledger": case("DarkroomLedgerErrors", darkroom_ledger_errors_total__worker=grows(2)),
    "ledger away for a moment": case(darkroom_ledger_errors_total__worker="5+0x112 9+0x7"),
    "wakeup": case("DarkroomWakeupsLost", darkroom_ledger_errors_total__wakeup=grows(0.1)),
    "pending": case("DarkroomNotificationsLate", darkroom_oldest_pending_notification_age_seconds=grows(60)),
    "failed": case("DarkroomNotificationsFailed", darkroom_notifications_failed="2+0x100 3+0x19"),
    "forbidden": case("DarkroomNotificationsForbidden", darkroom_notifications_total="0+0x100 1+0x19"),
}
