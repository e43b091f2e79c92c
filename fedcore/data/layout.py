"""Which files of a BIDS folder are a subject's images, and its masks.

Only the part that reading needs: ``sub-*/`` and below it, perhaps, ``ses-*/``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

MASKS = "derivatives/fedcore/masks/"


def mask_key(image: str, name: str) -> str:
    """Where the mask ``name`` of an image lies, which is on the image's grid.

    >>> mask_key("sub-1/ses-1/anat/sub-1_ses-1_FLAIR.nii.gz", "tumour")
    'derivatives/fedcore/masks/sub-1/ses-1/anat/sub-1_ses-1_desc-FLAIR_label-tumour_mask.nii.gz'
    """
    *entities, suffix = image.removesuffix(".nii.gz").split("_")
    return f"{MASKS}{'_'.join(entities)}_desc-{suffix}_label-{name}_mask.nii.gz"


def by_subject(keys: Iterable[str], root: str) -> dict[str, list[str]]:
    """Subject → the paths below its folder, sorted, of keys that start with ``root``.

    >>> by_subject(["b/sub-1/ct/x.nii.gz", "b/sub-1/anat/y.nii.gz", "b/sub-1_note"], "b/")
    {'sub-1': ['anat/y.nii.gz', 'ct/x.nii.gz']}
    """
    subjects = defaultdict(list)
    for key in keys:
        subject, _, path = key.removeprefix(root).partition("/")
        if path:
            subjects[subject].append(path)
    return {subject: sorted(paths) for subject, paths in subjects.items()}


def choose(
    paths: Sequence[str], patterns: Mapping[str, str]
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """One file per modality, and (path, reason) of those that match but are not used.

    ``patterns``: modality → glob below the subject's or session's folder.

    All come from one session, so that they show the same state of the patient: the first by name
    that has any of the modalities. Within it the first by name counts (``run-1`` before ``run-2``).
    """
    sessions = sorted({p.split("/")[0] + "/" for p in paths if p.startswith("ses-")})
    chosen: dict[str, str] = {}
    surplus: list[tuple[str, str]] = []
    for session in ("", *sessions):
        taken = bool(chosen)
        for name, pattern in patterns.items():
            matches = [p for p in paths if fits(p, session + pattern)]
            if matches and not taken:
                chosen[name] = matches.pop(0)
                surplus += [(path, "further file of the modality") for path in matches]
            else:
                surplus += [(path, "later session") for path in matches]
    return chosen, surplus


def session_of(paths: Iterable[str]) -> str:
    """The session that chosen paths come from, with a slash; empty if there are none.

    >>> session_of(["ses-1/anat/x.nii.gz"]), session_of(["anat/x.nii.gz"])
    ('ses-1/', '')
    """
    first = next(iter(paths), "").split("/")[0]
    return f"{first}/" if first.startswith("ses-") else ""


def fits(path: str, pattern: str) -> bool:
    """Whether a glob matches, where a star does not reach over a slash."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))
