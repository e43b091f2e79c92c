"""A DICOMweb server (PS3.18: QIDO-RS, WADO-RS) as a source. One part per patient.

What a study holds is asked before anything is fetched, so that what is known is not fetched again.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedcore.errors import AccessDenied, ServiceUnavailable
from fedcore.imports.sources import Known, Part

_PAGE = 100


@dataclass(frozen=True)
class Dicomweb:
    """``url``: the service's root, e.g. http://host:8042/dicom-web."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.url

    def parts(self, known: Known) -> Iterator[Part]:
        client = _Client(self)
        by_patient = defaultdict(list)
        for study in client.studies():
            by_patient[_value(study, "00100020")].append(_value(study, "0020000D"))
        for _, studies in sorted(by_patient.items()):
            new = [uid for uid in studies if not known(uid, client.content(uid))]
            if not new:
                continue
            with tempfile.TemporaryDirectory(prefix="fedcore-import-") as folder:
                root = Path(folder)
                for uid in studies:  # all of them: a mask may have been drawn on an older one
                    client.fetch(uid, root)
                yield Part(root, tuple(sorted(root.rglob("*.dcm"))))


class _Client:
    """dicomweb-client, with its errors as ours."""

    def __init__(self, source: Dicomweb) -> None:
        from dicomweb_client import DICOMwebClient
        from dicomweb_client.session_utils import create_session_from_user_pass

        session = None
        if source.user is not None:
            session = create_session_from_user_pass(source.user, source.password or "")
        headers = {"Authorization": f"Bearer {source.token}"} if source.token else None
        self._url = source.url
        self._client = DICOMwebClient(source.url, session=session, headers=headers)
        self._client.set_http_retry_params(max_attempts=3, wait_exponential_multiplier=500)

    def studies(self) -> Iterator[dict[str, Any]]:
        """Every study, page by page."""
        offset = 0
        while page := self._page(offset):
            yield from page
            offset += len(page)

    def content(self, study: str) -> str:
        """The digest of what the study holds, as ``Study.fingerprint(sizes=False)`` has it."""
        found: set[str] = set()
        offset = 0
        while page := self._page(offset, study):
            before = len(found)
            found |= {_value(instance, "00080018") for instance in page}
            if len(found) == before:  # a server that takes no notice of the offset
                break
            offset += len(page)
        lines = sorted(f"{sop} " for sop in found)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def fetch(self, study: str, root: Path) -> None:
        """Write every instance of the study below ``root``, one at a time, as the server has it."""
        folder = Path(tempfile.mkdtemp(dir=root))
        with self._told():
            as_stored = (("application/dicom", "*"),)
            for number, dataset in enumerate(self._client.iter_study(study, media_types=as_stored)):
                dataset.save_as(folder / f"{number:06}.dcm")

    def _page(self, offset: int, study: str | None = None) -> list[dict[str, Any]]:
        with self._told():
            if study is None:
                return self._client.search_for_studies(limit=_PAGE, offset=offset)
            return self._client.search_for_instances(study, limit=_PAGE, offset=offset)

    @contextmanager
    def _told(self) -> Iterator[None]:
        import requests

        try:
            yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status in (401, 403):
                raise AccessDenied(
                    f"{self._url}: {status}; set FEDCORE_DICOMWEB_USER and _PASSWORD, or _TOKEN"
                ) from error
            raise ServiceUnavailable(f"{self._url}: {error}") from error
        except requests.RequestException as error:
            raise ServiceUnavailable(f"{self._url} does not answer: {error}") from error


def _value(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])
