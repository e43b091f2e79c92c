"""Every error fedcore raises on purpose, as one tree.

    FedcoreError
    ├── TemporaryError            trying again later can help           exit 75
    │   ├── StoreUnavailable      the object store does not answer, or is full
    │   ├── ServiceUnavailable    a service of the embedded stack did not come up
    │   └── QuorumNotReached      fewer than min_clients usable replies in the round
    └── PermanentError            trying again gives the same answer    exit 70
        ├── ConfigError           a plan, federation or policy file is wrong   exit 78
        ├── DataError             one file or subject cannot be used           exit 65
        ├── BlobError             bytes that are not the blob they claim       exit 65
        ├── UpdateRejected        a reply the server will not aggregate        exit 65
        ├── OrderRefused          a site's policy says no                      exit 77
        ├── AccessDenied          the credential may not do this               exit 77
        ├── NotFound              no object, run or model of that name         exit 66
        ├── Conflict              another writer was there first, differently  exit 73
        └── ReleaseError          a model that must not be promoted            exit 65

The exit codes are those of BSD ``sysexits.h``. A Kubernetes ``podFailurePolicy`` reads them:
75 is retried, every other one of these is not. Exit code 3 is no error: the run ended well and
its gate said no.
"""

from __future__ import annotations

EXIT_GATE_FAILED = 3


class FedcoreError(Exception):
    """Base of every error raised on purpose. The message names the thing and the way out."""

    exit_code = 1


class TemporaryError(FedcoreError):
    """Trying again later can help."""

    exit_code = 75


class StoreUnavailable(TemporaryError):
    """The object store does not answer, or has no room left."""


class ServiceUnavailable(TemporaryError):
    """A service of the embedded stack did not come up, or went away."""


class QuorumNotReached(TemporaryError):
    """Fewer than ``min_clients`` usable replies when the round's deadline passed."""


class PermanentError(FedcoreError):
    """Trying again gives the same answer."""

    exit_code = 70


class ConfigError(PermanentError):
    """A plan, federation or policy file is wrong; the message names file, line and field."""

    exit_code = 78


class DataError(PermanentError):
    """One file or subject cannot be used; ``reason`` is a short category that may be counted."""

    exit_code = 65

    def __init__(self, message: str, *, reason: str = "unusable") -> None:
        super().__init__(message)
        self.reason = reason


class BlobError(PermanentError):
    """Bytes that are not the blob they claim to be (malformed, wrong digest, a pickle)."""

    exit_code = 65


class UpdateRejected(PermanentError):
    """A reply that the server will not aggregate; the message names the site."""

    exit_code = 65


class OrderRefused(PermanentError):
    """A site's policy, or its check of the signature, says no."""

    exit_code = 77


class AccessDenied(PermanentError):
    """The credential in use may not do this."""

    exit_code = 77


class NotFound(PermanentError):
    """There is no object, run or model of that name."""

    exit_code = 66


class Conflict(PermanentError):
    """A write-once object is there already, with other content."""

    exit_code = 73


class ReleaseError(PermanentError):
    """A model that must not be promoted (for example, its ONNX export disagrees)."""

    exit_code = 65


PERMANENT_EXITS = tuple(
    sorted({2, PermanentError.exit_code} | {e.exit_code for e in PermanentError.__subclasses__()})
)
"""Exit codes after which a new start would end the same way; 2 is a wrong command line."""
