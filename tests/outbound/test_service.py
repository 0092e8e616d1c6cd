"""What is set about ways out reaches each of them in a running service."""

from urllib.parse import urlsplit

import pytest

from receiver.sandbox import SandboxServer
from tests.support.forward_proxy import USER, forward_proxy
from tests.support.live import IMAGEN, ULTRA, Start
from tests.support.running import command


def test_a_service_goes_out_through_the_proxy(
    start: Start, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    port = urlsplit(sandbox.url).port or 0
    with forward_proxy({"gateway.example:80": port}) as proxy:
        proxy.user = USER
        gateway = {"base_url": "http://gateway.example"}
        live = start(outbound={"proxy": proxy.url}, apiframe=gateway, api_in_one=gateway)
        live.make(IMAGEN, fault="failed", notify_url="https://1.1.1.1/hook")
        live.submit(ULTRA, fault={"fault": "odd_link", "url": "https://1.0.0.1/a.png"})
        proxy.wait_for("gateway.example:80", "1.1.1.1:443", "1.0.0.1:443")
        assert not any("127.0.0.1" in asked for asked in proxy.asked)
    assert USER.partition(":")[2] not in capsys.readouterr().out


def test_a_proxy_of_the_environment_is_told() -> None:
    done = command("config", HTTPS_PROXY="http://user:pass-word@127.0.0.1:9")
    assert "HTTPS_PROXY is set and not used: DARKROOM_OUTBOUND__PROXY" in " ".join(
        done.stdout.split() + done.stderr.split()
    )
    assert "pass-word" not in done.stdout + done.stderr
