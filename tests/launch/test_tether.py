import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fedcore.launch.tether import spawn

ENV = {"PATH": os.environ["PATH"], "GREETING": "hello"}
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('up', flush=True); time.sleep(600)",
]  # fmt: skip


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    status = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout.strip()
    return bool(status) and not status.startswith("Z")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "child.log"


@pytest.mark.parametrize("code", [0, 1, 75, 78])
def test_the_exit_code_passes_through(log: Path, code: int) -> None:
    child = spawn([sys.executable, "-c", f"raise SystemExit({code})"], env=ENV, log=log)
    until(lambda: child.poll() is not None)
    assert child.poll() == code


def test_a_signal_becomes_128_and_more(log: Path) -> None:
    child = spawn(SLEEP, env=ENV, log=log)
    assert child.poll() is None
    os.kill(child.child_pid, signal.SIGKILL)
    until(lambda: child.poll() is not None)
    assert child.poll() == 128 + signal.SIGKILL


def test_environment_folder_and_output_are_the_childs(log: Path, tmp_path: Path) -> None:
    code = (
        "import os, sys;"
        "print(os.getcwd(), sorted(k for k in os.environ if k[:2] != 'LC'), flush=True);"
        "print(os.environ['GREETING'], sys.stdin.read() == '', file=sys.stderr)"
    )
    child = spawn([sys.executable, "-c", code], env=ENV, log=log, cwd=tmp_path)
    until(lambda: child.poll() is not None)
    assert f"{tmp_path} ['GREETING', 'PATH']" in child.log_tail()
    assert child.log_tail(1) == "hello True"


def test_what_cannot_start_says_so(log: Path) -> None:
    child = spawn(["/no/such/program"], env=ENV, log=log)
    assert child.child_pid == 0
    until(lambda: child.poll() is not None)
    assert child.poll() == 127
    assert "cannot start /no/such/program" in child.log_tail()
    child.terminate()


def test_terminate_asks_first(log: Path) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*_): print('saved', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    child = spawn([sys.executable, "-c", code], env=ENV, log=log)
    until(lambda: "up" in child.log_tail())
    child.terminate()
    assert child.log_tail(1) == "saved"
    assert child.poll() == 0
    child.terminate()


def test_terminate_insists_after_the_grace(log: Path) -> None:
    child = spawn(STUBBORN, env=ENV, log=log, grace=0.2)
    until(lambda: "up" in child.log_tail())
    child.terminate()
    assert child.poll() == 128 + signal.SIGKILL
    assert not alive(child.child_pid)


def test_the_childs_own_children_go_with_it(log: Path) -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(600)']); print(p.pid, flush=True)"
    )
    child = spawn([sys.executable, "-c", code], env=ENV, log=log)
    until(lambda: child.poll() is not None)
    grandchild = int(child.log_tail(1))
    until(lambda: not alive(grandchild))


PARENT = """
import os, signal, threading, time
from pathlib import Path
from fedcore.launch.tether import spawn

# Whoever runs the tests as a shell's background job ignores SIGINT, and passed that on.
signal.signal(signal.SIGINT, signal.default_int_handler)

child = None
def begin():
    global child
    child = spawn({command!r}, env={env!r}, log=Path({log!r}), grace=0.2)
thread = threading.Thread(target=begin)
thread.start()
thread.join()
if {fork} and os.fork() == 0:
    time.sleep(20)
    os._exit(0)
print(child.child_pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("fork", [False, True], ids=["alone", "pipe-held-by-a-fork"])
def test_the_child_dies_with_its_parent(log: Path, number: int, fork: bool) -> None:
    script = PARENT.format(command=STUBBORN, env=ENV, log=str(log), fork=fork)
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert alive(pid)
    try:
        parent.send_signal(number)
        until(lambda: not alive(pid), seconds=10)
    finally:
        os.killpg(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()


def test_the_child_outlives_the_thread_that_started_it(log: Path) -> None:
    children = []
    thread = threading.Thread(target=lambda: children.append(spawn(SLEEP, env=ENV, log=log)))
    thread.start()
    thread.join()
    until(lambda: "up" in children[0].log_tail())
    with pytest.raises(AssertionError, match="in time"):
        until(lambda: children[0].poll() is not None, seconds=1.0)  # two looks of the guard
    children[0].terminate()


def test_ctrl_c_at_the_terminal_reaches_the_parent_alone(log: Path) -> None:
    child = spawn(SLEEP, env=ENV, log=log)
    until(lambda: "up" in child.log_tail())
    assert os.getpgid(child.child_pid) != os.getpgid(0)
    assert os.getsid(child.child_pid) != os.getsid(0)
    child.terminate()


def test_a_lock_is_held_for_as_long_as_the_child_lives(log: Path, tmp_path: Path) -> None:
    first = spawn(SLEEP, env=ENV, log=log, lock=tmp_path / "lock")
    second = []
    thread = threading.Thread(
        target=lambda: second.append(spawn(SLEEP, env=ENV, log=log, lock=tmp_path / "lock"))
    )
    thread.start()
    thread.join(1.0)
    assert thread.is_alive(), "the second child started on the first one's data"
    first.terminate()
    thread.join(30)
    assert alive(second[0].child_pid)
    second[0].terminate()


def test_log_tail_is_of_all_starts(log: Path) -> None:
    for word in ("first", "second"):
        child = spawn([sys.executable, "-c", f"print({word!r})"], env=ENV, log=log)
        until(lambda child=child: child.poll() is not None)
    assert child.log_tail().split() == ["first", "second"]
    assert child.log_tail(1) == "second"
