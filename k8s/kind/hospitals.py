"""Run by the Job ``hospitals``: makes the buckets, and fills each site's with a few phantoms."""

import json
import os
from pathlib import Path

from fedcore.data.phantoms.cohort import demo_federation
from fedcore.data.phantoms.writer import write_federation
from fedcore.local.credentials import ADMIN, EXCHANGE, SERVER, site_bucket
from fedcore.store.patient import PatientStore
from fedcore.store.s3 import S3Store, connect

SEED = 20261124
SCALE = 0.5  # with fewer subjects a site has too few to evaluate on, and refuses


def main() -> None:
    """Each site's data are written with that site's own key."""
    keys = json.loads(Path("/etc/s3/credentials.json").read_text())

    def store(name: str, bucket: str) -> S3Store:
        access_key, secret_key = keys[name]
        return connect(
            bucket=bucket, endpoint="http://s3:8333", access_key=access_key, secret_key=secret_key
        )

    sites = [name for name in keys if name not in (ADMIN, SERVER)]
    for bucket in (EXCHANGE, *map(site_bucket, sites)):
        store(ADMIN, bucket).create_bucket()
    specs = [spec for spec in demo_federation(SEED, SCALE) if spec.name in sites]
    write_federation(
        [(s, PatientStore(store(s.name, site_bucket(s.name)), trusted=True)) for s in specs],
        seed=SEED,
        workers=len(os.sched_getaffinity(0)),
    )
    print(f"{sum(spec.size for spec in specs)} subjects at {', '.join(sites)}")


if __name__ == "__main__":
    main()
