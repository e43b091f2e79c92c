"""A real PACS: Orthanc of Debian, with its DICOMweb plugin."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import scans
from scans import outcomes, series

from fedcore.data.phantoms import dicom
from fedcore.errors import AccessDenied, ServiceUnavailable
from fedcore.imports.dicomweb import Dicomweb
from fedcore.imports.job import run
from fedcore.imports.rules import load
from fedcore.imports.run import Importer
from fedcore.imports.sources import open_source
from fedcore.store.memory import MemoryStore

ORTHANC = shutil.which("Orthanc", path="/usr/sbin:/usr/bin:/usr/local/sbin")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        ORTHANC is None or not PLUGIN.exists(), reason="orthanc or orthanc-dicomweb is missing"
    ),
]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("orthanc")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "HttpPort": port, "DicomServerEnabled": False, "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"), "Plugins": [str(PLUGIN)],
        "AuthenticationEnabled": True, "RegisteredUsers": {"importer": "word"},
        "DicomWeb": {"Enable": True}, "RemoteAccessAllowed": False,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    assert ORTHANC is not None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                requests.get(f"{url}/system", auth=("importer", "word"), timeout=5)
                break
            except requests.RequestException:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


def send(pacs: str, *stacks: list[object]) -> None:
    for stack in stacks:
        for image in stack:
            answer = requests.post(
                f"{pacs}/instances", data=dicom.file(image), auth=("importer", "word"), timeout=20
            )
            answer.raise_for_status()


def test_a_pacs_gives_what_a_folder_gives(
    pacs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stacks = [series("CT"), series("MR", study="b"), series("MR", patient="2")[:4]]
    send(pacs, *stacks)
    monkeypatch.setenv("FEDCORE_DICOMWEB_USER", "importer")
    monkeypatch.setenv("FEDCORE_DICOMWEB_PASSWORD", "word")
    source = open_source(f"{pacs}/dicom-web")
    assert "word" not in repr(source)
    store = MemoryStore()

    def again() -> dict[str, int]:
        return dict(run(source, Importer(store, scans.SECRET, load(None))).studies)

    assert again() == {"imported": 3}
    folder = scans.bring(scans.write(tmp_path, *stacks))
    assert {k: store.get(k) for k in store.list("sub-")} == {
        k: folder.get(k) for k in folder.list("sub-")
    }
    assert sorted(o.what for o in outcomes(store)) == ["quarantined", "used", "used"]
    before = dict(store._objects)
    assert again() == {"known": 1}, "what was quarantined is looked at again, the rest not fetched"
    assert store._objects == before
    send(pacs, series("MR", patient="2"))
    assert again() == {"imported": 1}
    assert [o.what for o in outcomes(store)] == ["used"] * 3


def test_a_pacs_that_refuses_or_is_away(pacs: str) -> None:
    importer = Importer(MemoryStore(), scans.SECRET, load(None))
    with pytest.raises(AccessDenied, match="FEDCORE_DICOMWEB_USER"):
        run(Dicomweb(f"{pacs}/dicom-web", "importer", "wrong"), importer)
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        run(Dicomweb("http://127.0.0.1:9/dicom-web"), importer)
