"""Serve the submit form: make a picture, or make one again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import RedirectResponse, Response

from receiver.api.jobs import Api
from receiver.errors import IdempotencyConflict, InvalidRequest
from receiver.gallery import submit_form
from receiver.gallery.page import PageRequest
from receiver.gallery.submit_form import FIELDS, FORM, LABELS, Typed
from receiver.gateways.base import Gateway
from receiver.gateways.offers import RATIOS, asking_for_everything
from storage.models import Job, JobRequest
from storage.search.facets import Facets
from storage.search.filters import SearchFilter

SENT_BEFORE = "This form was sent before, with something else in it. Submit it once more to make a new job."
ELSE = "a model that is not in the list"
"""Key of every model that a gateway does not list."""


@dataclass(frozen=True, slots=True)
class From:
    """The job or output that a form was filled in from."""

    job: Job
    output_id: str | None
    seed_reported: str | None
    """Whether the seed in the form was reported by the gateway, not requested."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A form as shown: its values, their faults, and its idempotency key."""

    values: Typed
    key: str = field(default_factory=submit_form.new_key)
    faults: Mapping[str, str] = field(default_factory=dict)
    made_from: From | None = None


@dataclass(frozen=True, slots=True)
class SubmitPage:
    """The page `/submit`."""

    api: Api
    facets: Facets

    def ask(self, visit: PageRequest) -> Response:
        """Show the form: empty, or with `from` filled in from a job or an output."""
        if (origin := visit.given("from")) is None:
            return self._page(visit, Sheet(dict.fromkeys(FIELDS, "") | self._usual()))
        made_from = self._from(origin)
        return self._page(
            visit, Sheet(submit_form.written(made_from.job, made_from.seed_reported), made_from=made_from)
        )

    def submit(self, visit: PageRequest) -> Response:
        """Accept a job and redirect to its page; or show the form again with its faults."""
        values, key = submit_form.typed(visit.form), submit_form.key_of(visit.form.get("key"))
        try:
            job_id, _ = self.api.accept(submit_form.read(values), key, visit.request)
        except InvalidRequest as error:
            shown = submit_form.kept(visit.form, values)
            sheet = Sheet(shown, key, submit_form.by_field(error.faults))
            return self._page(visit, sheet, status=error.status)
        except IdempotencyConflict as error:
            shown = submit_form.kept(visit.form, values)
            return self._page(visit, Sheet(shown, faults={FORM: SENT_BEFORE}), status=error.status)
        return RedirectResponse(f"/jobs/{job_id}", 303)

    @property
    def _gateways(self) -> Mapping[str, Gateway]:
        return self.api.submitter.context.gateways

    def _usual(self) -> dict[str, str]:
        """Return the gateway and model of the last job, the likeliest choice."""
        last = next(iter(self.api.search.jobs(SearchFilter(), limit=1).rows), None)
        if last is None or last.gateway not in self._gateways:
            return {"gateway": next(iter(sorted(self._gateways)), "")}
        return {"gateway": last.gateway, "model": last.request.model}

    def _page(self, visit: PageRequest, sheet: Sheet, *, status: int = 200) -> Response:
        lately = [one.value for one in self.facets.read(SearchFilter()).model]
        choices: Mapping[str, Any] = known(self._gateways, lately)
        return visit.page(
            "submit.html",
            status=status,
            sheet=sheet,
            values=sheet.values,
            faults={**dict.fromkeys((*FIELDS, FORM), ""), **sheet.faults},
            wrong=[name for name in FIELDS if name in sheet.faults],
            labels=LABELS,
            known=choices,
            models=offered(choices, sheet.values.get("gateway", "")),
            ratios=RATIOS,
            gateways=sorted(self._gateways),
        )

    def _from(self, origin: str) -> From:
        """Return the job or output with an id; raises NotFound."""
        if "." in origin:
            found = self.api.search.output(origin)
            job, reported = found.job, found.output.seed or found.job.result.seed
        else:
            job = self.api.ledger.job(origin)
            reported = job.result.seed
        return From(job, origin if "." in origin else None, None if job.request.seed else reported)


def known(gateways: Mapping[str, Gateway], lately: Sequence[str]) -> dict[str, Any]:
    """By gateway: `models` to offer, those used lately first; `lacks` by model, `else` for any other model;
    and `prices` by model, in credits for one image.
    """
    return {name: _known(gateway, lately, gateways) for name, gateway in gateways.items()}


def offered(known: Mapping[str, Mapping[str, Any]], chosen: str) -> dict[str, str]:
    """Return the models to offer, each with the names of its gateways; those of the chosen gateway first."""
    found: dict[str, list[str]] = {}
    for name in sorted(known, key=lambda name: name != chosen):
        for model in known[name]["models"]:
            found.setdefault(model, []).append(name)
    return {model: ", ".join(names) for model, names in found.items()}


def _known(gateway: Gateway, lately: Sequence[str], gateways: Mapping[str, Gateway]) -> dict[str, Any]:
    others = {model for other in gateways.values() if other is not gateway for model in other.models}
    used = [model for model in lately if model in gateway.models or model not in others]
    lacks = {model: _lacking(gateway, model) for model in gateway.models}
    prices = {model: gateway.estimate(JobRequest(model, "x")) for model in gateway.models}
    return {
        "models": [*used, *(model for model in gateway.models if model not in used)],
        "lacks": lacks,
        "else": _lacking(gateway, ELSE),
        "prices": {model: price for model, price in prices.items() if price is not None},
    }


def _lacking(gateway: Gateway, model: str) -> list[str]:
    """Return the form fields that a model does not support."""
    return sorted(gateway.unsupported(asking_for_everything(model)))
