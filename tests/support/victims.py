"""The processes of a run, as its folder tells them from everybody else's."""

from __future__ import annotations

from pathlib import Path


def processes(workdir: Path, *words: str) -> list[int]:
    """Those that have ``workdir`` and all ``words`` in their command line or environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            surroundings = (folder / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        about = f"{command}\n{surroundings}"
        if all(word in about for word in (str(workdir), *words)) and "tether.py" not in command:
            found.append(int(folder.name))
    return found
