"""What `jupyter_server_config.py` says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jupyter.support import JupyterServer

UUID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A server that starts no JobManager server, and has an address that is none."""
    folder = tmp_path_factory.mktemp("strict")
    server = JupyterServer(folder, **{"SageNb.start_server": "False", "SageNb.address": "no address"})
    yield server
    server.stop()


def test_no_server_is_started_where_pages_may_not(strict: JupyterServer) -> None:
    assert strict.get("server")["may_start"] is False
    assert strict.get("jobs")["server"]["may_start"] is False
    answer = strict.post("server/start")
    assert answer.status == 403
    assert "c.SageNb.start_server is off" in answer.json["message"]
    assert not list(strict.runtime.glob("sage_nb-jobmanager-*"))


def test_an_address_that_is_none_is_said_and_ends_no_page(strict: JupyterServer) -> None:
    with strict.page() as page:
        page.say(op="follow", job=UUID)
        page.wait(lambda message: message == {"op": "gone", "job": UUID})
        assert "no address" in page.state(lambda server: server["state"] == "unreachable")["error"]
        page.say(op="follow", job=UUID)
        page.wait(lambda message: message == {"op": "gone", "job": UUID})
    assert "Traceback" not in strict.log
