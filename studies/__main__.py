"""``make study``: run the studies, or those that are named, and leave what they found.

Rows (``studies.rows``) go into ``benchmarks/studies.json``, and from there into
``docs/studies.md``; the rest into ``studies/results.json``.

python -m studies audit
"""

from __future__ import annotations

import argparse

from studies import (
    audit,
    bytes,
    curve,
    fairness,
    fusion,
    methods,
    page,
    results,
    rows,
    segmentation,
    skewed,
    synthetic,
    unseen,
)

STUDIES = {"audit": audit.main, "bytes": bytes.main, "curve": curve.main}
EVIDENCE = {
    "fairness": fairness.main, "fusion": fusion.main, "methods": methods.main,
    "segmentation": segmentation.main, "skewed": skewed.main, "synthetic": synthetic.main,
    "unseen": unseen.main,
}  # fmt: skip
ALL = [*STUDIES, *EVIDENCE]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("studies", nargs="*", help=f"of {', '.join(ALL)}; all, if none is")
    asked = parser.parse_args().studies or ALL
    if unknown := set(asked) - set(ALL):
        parser.error(f"{min(unknown)}: no such study")
    for name in asked:
        if name in EVIDENCE:
            rows.write(name, EVIDENCE[name]())
            page.main()
        else:
            results.write(name, STUDIES[name]())
