"""``make study``: run the studies, or those that are named, and leave ``studies/results.json``.

python -m studies audit
"""

from __future__ import annotations

import argparse

from studies import audit, bytes, curve, results, unlike

STUDIES = {
    "audit": audit.main, "bytes": bytes.main, "curve": curve.main, "unlike": unlike.main,
}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(STUDIES)}; all, if none is")
    asked = parser.parse_args().studies or list(STUDIES)
    if unknown := set(asked) - set(STUDIES):
        parser.error(f"{min(unknown)}: no such study")
    for name in asked:
        results.write(name, STUDIES[name]())
