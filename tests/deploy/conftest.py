"""Read the metrics' page of a running service once for everything that watches it."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.watched import Series
from tests.support.live import IMAGEN, Live


@pytest.fixture(scope="package")
def shown(live: Live) -> list[Series]:
    """Every line of a running service's page, after a job and its callback."""
    assert live.make(IMAGEN)["status"] == "archived"
    page = live.http.get("/metrics").text
    families = text_string_to_metric_families(page)
    return [(sample.name, sample.labels) for family in families for sample in family.samples]
