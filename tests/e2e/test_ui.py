"""``fedcore up``: runs that are started, watched and retried in Prefect's UI.

One stack serves all tests of this file; they are in the order in which they need it.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from demo_runs import SCALE, small_plan
from running import processes, until

from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.config.plan import Gates
from fedcore.server.connect import server_store
from fedcore.server.result import finished_run

pytestmark = pytest.mark.e2e

SITES = ["east", "north", "south", "west"]
CLICK = "arguments[0].click(); return true"
ENGINE, CLIENT = "-m prefect.engine", "-m fedcore client"


@dataclass
class Up:
    """The command, and Prefect's API behind its UI."""

    workdir: Path
    plan: Path
    long: Path
    """A plan whose run is never over while somebody looks."""

    def start(self) -> None:
        """Start it, and return when a run can be started."""
        log = self.workdir.parent / "up.log"
        self._command = subprocess.Popen(
            [sys.executable, "-m", "fedcore", "up", "--workdir", str(self.workdir),
             "--scale", SCALE],
            stderr=log.open("w"),
            env={name: value for name, value in os.environ.items() if "PREFECT" not in name},
            start_new_session=True,
            # A shell without job control lets its background processes ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )  # fmt: skip
        until(lambda: self._alive() and "Start a run" in log.read_text(), told=log.read_text())
        self.url = re.search(r"Prefect UI +(\S+)", log.read_text())[1]  # type: ignore[index]

    def _alive(self) -> bool:
        assert self._command.poll() is None, "it ended"
        return True

    def kill(self) -> None:
        self._command.kill()
        self._command.wait()

    def interrupt(self) -> int:
        """Ctrl-C: the terminal sends it to the whole foreground group."""
        os.killpg(self._command.pid, signal.SIGINT)
        return self._command.wait(60)

    def post(self, path: str, **body: Any) -> Any:
        """Ask Prefect's API. While its database, SQLite, is busy, it answers 503."""

        def ask() -> httpx.Response | None:
            answer = httpx.post(f"{self.url}/api/{path}", json=body, timeout=60)
            return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer

        answer = until(ask, told=f"no answer to {path}")
        answer.raise_for_status()
        return answer.json()

    def trigger(self, plan: Path | None = None) -> str:
        """What the UI's Submit does. Returns the flow run's id."""
        (deployment,) = self.post("deployments/filter")
        created = self.post(
            f"deployments/{deployment['id']}/create_flow_run",
            state={"type": "SCHEDULED"},
            parameters={"plan": str(plan or self.plan)},
        )
        return str(created["id"])

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        (found,) = self.post("flow_runs/filter", flow_runs={"id": {"any_": [flow_run_id]}})
        return dict(found)

    def flow_runs(self) -> set[str]:
        return {found["id"] for found in self.post("flow_runs/filter")}

    def await_state(self, flow_run_id: str, state: str) -> dict[str, Any]:
        until(lambda: self._alive() and self._is(flow_run_id, state), told=state)
        return self.flow_run(flow_run_id)

    def _is(self, flow_run_id: str, wanted: str) -> bool:
        state: dict[str, Any] = self.flow_run(flow_run_id)["state"]
        over = state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        assert not over or state["name"] == wanted, state["message"]
        return bool(state["name"] == wanted)

    def artifacts(self, flow_run_id: str) -> list[dict[str, Any]]:
        return list(self.post("artifacts/filter", flow_runs={"id": {"any_": [flow_run_id]}}))

    def result(self, run_id: str) -> dict[str, Any]:
        federation = federations.load(self.workdir / "federation.yaml")
        result = finished_run(federation, plans.load(self.plan), run_id)
        assert result is not None, f"{run_id} is not over"
        return result

    def await_reply(self, run_id: str) -> None:
        """Until the run is in the middle of its first round."""
        store = server_store(federations.load(self.workdir / "federation.yaml"))
        until(lambda: any(f"/{run_id}/000000.s" in key for key in store.list("replies/")))


@pytest.fixture(scope="module")
def up(brain_workdir: Callable[[str], Path]) -> Iterator[Up]:
    workdir = brain_workdir("up")
    no_gate = {"gates": dict.fromkeys(Gates.model_fields)}
    plan = small_plan(workdir.parent / "small.yaml", no_gate)
    long = small_plan(workdir.parent / "long.yaml", {**no_gate, "rounds": 1000})
    command = Up(workdir, plan, long)
    command.start()
    yield command
    command.kill()
    until(lambda: not processes(command.workdir), seconds=30)


@pytest.fixture(scope="module")
def undisturbed(up: Up) -> str:
    """The params that a run of the small plan ends with."""
    completed = up.await_state(up.trigger(), "Completed")
    return str(up.result(completed["name"])["params_sha256"])


def test_a_flow_run_is_named_by_its_run_and_shows_every_round(up: Up, undisturbed: str) -> None:
    (completed,) = up.post("flow_runs/filter")
    run_id = completed["name"]
    assert run_id == f"brain-tumour-{completed['id'][:8]}"
    shown = {artifact["key"]: artifact for artifact in up.artifacts(completed["id"])}
    assert set(shown) == {f"round-{run_id}-00000", f"round-{run_id}-00001", f"model-{run_id}"}
    assert [site in shown[f"round-{run_id}-00001"]["data"] for site in SITES] == [True] * 4
    assert "not a medical device" in shown[f"model-{run_id}"]["data"]
    lines = up.post("logs/filter", logs={"flow_run_id": {"any_": [completed["id"]]}})
    assert any(line["message"].startswith("round: round_num=1") for line in lines)
    report = up.workdir / "runs" / run_id / "report.html"
    until(report.exists, told="the report is written as the last")
    assert "Every subject here is synthetic" in report.read_text()


def test_killed_flow_and_killed_server_go_on_with_the_same_run(up: Up, undisturbed: str) -> None:
    """A flow run's process dies: Retry. The server dies: started again, it takes up the run."""
    flow_run_id = up.trigger()
    run_id = up.await_state(flow_run_id, "Running")["name"]
    up.await_reply(run_id)
    (engine,) = processes(up.workdir, ENGINE)
    os.kill(engine, signal.SIGKILL)
    up.await_state(flow_run_id, "Crashed")
    until(lambda: not processes(up.workdir, CLIENT), seconds=30, told="its clients end with it")

    up.post(f"flow_runs/{flow_run_id}/set_state",
            state={"type": "SCHEDULED", "name": "AwaitingRetry"}, force=True)  # fmt: skip
    up.await_state(flow_run_id, "Running")
    until(lambda: processes(up.workdir, CLIENT), told="the run goes on")
    up.kill()
    until(lambda: not processes(up.workdir), seconds=30, told="nothing outlives it")

    up.start()
    completed = up.await_state(flow_run_id, "Completed")
    assert (completed["name"], completed["run_count"]) == (run_id, 3)
    assert up.result(run_id)["params_sha256"] == undisturbed


def test_a_run_is_started_and_others_are_read_in_the_browser(
    up: Up, undisturbed: str, browser: Any
) -> None:
    """Deployments, train, Run, Custom run; another plan; Submit. It runs; an earlier one is over,
    and shows what its rounds came to."""
    from selenium.webdriver.common.keys import Keys

    browser.open(f"{up.url}/deployments")
    browser.click("//a[contains(@href, '/deployments/deployment/')]")
    browser.click("//button[normalize-space()='Run']")
    browser.click("//*[normalize-space()='Custom run']")
    for words in ("what to train, and how", "the sites and the exchange bucket", "for a new run"):
        browser.find(f"//*[contains(text(), '{words}')]")
    field = browser.find("//textarea[1]")
    assert browser.value(field) == str(up.workdir / "plan.yaml")
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(str(up.long))
    before = up.flow_runs()
    browser.click("//button[normalize-space()='Submit']")
    # Not by the message's "View run": on a busy machine it is gone before it was clicked.
    (started,) = until(lambda: up.flow_runs() - before, seconds=60, told="Submit starts a run")
    browser.open(f"{up.url}/runs/flow-run/{started}")
    browser.find("//*[normalize-space()='Running']", seconds=120)

    (completed, *_) = (run for run in before if up.flow_run(run)["state"]["name"] == "Completed")
    browser.open(f"{up.url}/runs/flow-run/{completed}")
    browser.find("//*[normalize-space()='Completed']")
    browser.click("//*[normalize-space()='Artifacts']")
    browser.click("//a[contains(@href, '/artifacts/')][contains(., '-00001')]")
    for site in SITES:
        browser.find(f"//td[normalize-space()='{site}']")


def test_ctrl_c_ends_everything(up: Up) -> None:
    if not processes(up.workdir, ENGINE):  # none was begun in the browser
        up.await_state(up.trigger(up.long), "Running")
    until(lambda: len(processes(up.workdir, CLIENT)) == len(SITES))
    assert up.interrupt() == 0
    until(lambda: not processes(up.workdir), seconds=30, told="nothing outlives it")


class Browser:
    """Headless Chromium; whatever is looked for is waited for."""

    def __init__(self, chromium: str, chromedriver: str, profile: Path) -> None:
        from selenium.webdriver import Chrome, ChromeOptions, ChromeService

        options = ChromeOptions()
        options.binary_location = chromium
        for argument in (
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--window-size=1400,1000", f"--user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(argument)
        self._chrome = Chrome(options=options, service=ChromeService(chromedriver))

    def open(self, url: str) -> None:
        self._chrome.get(url)

    def find(self, path: str, seconds: float = 60) -> Any:
        return self._await(path, lambda found: found, seconds)

    def click(self, path: str) -> None:
        # By script: a message that is still sliding in may lie above what is there already.
        self._await(path, lambda found: self._chrome.execute_script(CLICK, found), seconds=60)

    def _await(self, path: str, act: Callable[[Any], Any], seconds: float) -> Any:
        """Find what can be seen at ``path`` and act on it, again if the page changes meanwhile."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        def acted(chrome: Any) -> Any:
            found = chrome.find_element(By.XPATH, path)
            return found.is_displayed() and found.is_enabled() and act(found)

        again = [StaleElementReferenceException]
        return WebDriverWait(self._chrome, seconds, ignored_exceptions=again).until(acted, path)

    def value(self, field: Any) -> str:
        until(lambda: field.get_attribute("value"), seconds=30, told="the field is filled in")
        return str(field.get_attribute("value"))

    def quit(self) -> None:
        self._chrome.quit()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("no chromium with chromedriver on this machine")
    opened = Browser(chromium, chromedriver, tmp_path / "profile")
    yield opened
    opened.quit()
