"""Names of tags may have letters of any script and spaces: they are stored, found, counted and shown."""

from pathlib import Path
from urllib.parse import quote

import pytest

from tests.support.live import IMAGEN, Live, Start
from tests.support.running import Running

NAMES = ["мой проект", "प्रोजेक्ट 1", "กำหนด", "می‌شود", "作品", "naïve-Name.v2_x", "my tag"]


@pytest.fixture(scope="module")
def tagged(live: Live) -> Live:
    assert live.make(IMAGEN, tags={name: f"of {name}" for name in NAMES})["status"] == "archived"
    live.make(IMAGEN, tags={"мой проект": "another"})
    return live


@pytest.mark.parametrize("name", NAMES)
def test_a_tag_of_any_script_is_found(tagged: Live, name: str) -> None:
    value = f"of {name}"
    for query in (
        {f"tag.{name}": value},
        {"q": f'tag:"{name}"="{value}"'},
        {"q": f'kite tag:"{name}={value}"'},
    ):
        for route in ("jobs", "outputs"):
            found = tagged.http.get(f"/v1/{route}", params=query).json()[route]
            assert [one["request"]["tags"] if route == "jobs" else one["tags"] for one in found] == [
                {name: f"of {name}" for name in NAMES}
            ], (query, route)
    excluded = tagged.http.get("/v1/outputs", params={"q": f'-tag:"{name}"="{value}"'}).json()["outputs"]
    assert all(one["tags"].get(name) != value for one in excluded)
    usage = tagged.http.get("/v1/usage", params={"tag": name}).json()
    assert value in {group["value"] for group in usage["groups"]}


def test_a_tag_with_a_space_can_be_clicked(tagged: Live) -> None:
    page = tagged.http.get("/", params={"q": "tag:作品=of 作品"}).text
    assert quote('tag:"мой проект"="of мой проект"') in page or "tag%3A%22" in page


@pytest.mark.parametrize(
    "name", ["", " ", " a", "a ", "a=b", "a:b", "a/b", 'a"b', "a\nb", "a\u2028b", "x" * 65, "\uff1d"]
)
def test_a_name_that_cannot_be_is_refused(live: Live, name: str) -> None:
    answer = live.http.post("/v1/jobs", json={**IMAGEN, "tags": {name: "x"}})
    assert answer.status_code == 422
    (fault,) = answer.json()["faults"]
    assert "letters, digits, dots, dashes, underscores, and spaces between them" in fault["message"]


def test_a_key_may_have_such_a_name(start: Start) -> None:
    live = start(key_template="{tag:мой проект}/{job_id}/{index}.{ext}")
    job = live.make(IMAGEN, tags={"мой проект": "лето"})
    (output,) = live.outputs(job["id"])
    assert output["key"].startswith("лето/")


def test_commands_take_such_a_name(running: Running, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("prompt,tags.мой проект\na kite,лето\n")
    options = ["--gateway", "apiframe", "--model", "imagen-4-fast", "--tag", "my tag=x", "--wait"]
    done = running.darkroom_command("submit", "-f", str(prompts), *options)
    assert done.returncode == 0, done.stdout + done.stderr
    for query in (["--tag", "мой проект=лето"], ['tag:"мой проект"=лето tag:"my tag"=x']):
        found = running.darkroom_command("search", *query, "--json")
        assert '"мой проект"' in found.stdout or "\\u043c" in found.stdout
