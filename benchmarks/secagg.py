"""Secure aggregation by masks: what it costs a site and the server, against the floor.

The floor is generating the key streams alone, one for each of a site's masks, block by block. The
measured work masks an update of 10 M parameters at one of 10 sites: the time of flattening and
masking, less that of flattening alone (a round without masks sends the same words). Stochastic
rounding, which makes words of floats, is shown beside it. Bytes are all that a site sends in the
round, the messages as the JSON that the exchange holds. Both are taken in turns, the median counts.

Where it installs (into a virtual environment that is thrown away), Flower's SecAgg+ does the same
work by its own functions: key agreement, shares, quantisation, masks; without its serialisation.

    python -m benchmarks.secagg
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from benchmarks.aggregation import layout, model
from fedcore import seeds
from fedcore.params import BLOCK, modules
from fedcore.privacy import fixed_point, secagg
from fedcore.privacy.secagg import Revealed, Secrets, Shares, Signatures, SiteKeys

BITS = 20
SITES = 10
MANY = 100
MANY_WORDS = 100_000
REPETITIONS = 7
RATIO_GOAL = 1.5
UPLOAD_GOAL = 1.05
FLOWER_GOAL = 1.0
FLOWER = "flwr==1.42.0"

Row = dict[str, Any]


@dataclass
class Cohort:
    """Sites with their keys advertised, and what each sent so far."""

    count: int
    neighbours: int | None = None
    context: bytes = secagg.context_of("benchmark", 0)
    shared: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sites = [f"site-{index:03}" for index in range(self.count)]
        self.identities = {site: Ed25519PrivateKey.generate() for site in self.sites}
        self.accepted = {site: [key.public_key()] for site, key in self.identities.items()}
        self.secrets = {s: Secrets.from_seed(os.urandom(32), self.context) for s in self.sites}
        self.roster = [
            secagg.advertise_keys(s, self.secrets[s], self.identities[s], self.context)
            for s in self.sites
        ]
        self.threshold = secagg.default_threshold(self.count)
        self.terms = secagg.agree(self.roster, self.context, self.threshold, self.neighbours)

    def share(self, site: str) -> None:
        self.shared[site] = secagg.share_keys(site, self.secrets[site], self.terms)

    def inbox(self, site: str) -> dict[str, bytes]:
        return {s: sealed[site] for s, sealed in self.shared.items() if site in sealed}

    def unmask(self, site: str, survivors: Sequence[str]) -> Revealed:
        return secagg.unmask(
            site, self.secrets[site], self.inbox(site), self.sites, survivors, self.terms
        )


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def medians(*works: Callable[[], object]) -> list[float]:
    """Seconds of each, taken in turns after one that does not count."""
    taken = [[seconds(work) for work in works] for _ in range(REPETITIONS + 1)][1:]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def key_streams(count: int, words: int) -> None:
    """The floor: ``count`` streams for uint32 ``words``, into a buffer that stays in the cache."""
    zeros, out = memoryview(bytes(4 * BLOCK)), memoryview(bytearray(4 * BLOCK))
    for _ in range(count):
        cipher = Cipher(algorithms.ChaCha20(key=os.urandom(32), nonce=bytes(16)), mode=None)
        stream = cipher.encryptor()
        for begin in range(0, words, BLOCK):
            used = 4 * min(BLOCK, words - begin)
            stream.update_into(zeros[:used], out[:used])


def one_site(rows: list[Row]) -> None:
    """10 sites, 10 M parameters: a site's time and bytes, and the server's with one dropped."""
    like, cohort, site = model(), Cohort(SITES), "site-003"
    rng = seeds.generator(0, "benchmark")
    update = {n: rng.uniform(-1, 1, s).astype(np.float32) for n, s in layout().items()}
    grid = fixed_point.grid(BITS, 1.0, SITES)
    weights = dict.fromkeys(modules(like), 1.0)
    secrets, words = cohort.secrets[site], fixed_point.length(like)

    def flatten() -> fixed_point.Words:
        return fixed_point.flatten(update, weights, like, grid, secrets.rounding_key)

    def flatten_and_mask() -> None:
        secagg.masked_input(flatten(), site, secrets, cohort.sites, cohort.terms)

    floor, plain, masked = medians(lambda: key_streams(SITES, words), flatten, flatten_and_mask)
    rows += [
        row("secagg.key_streams.10", floor, "s"),
        row("secagg.flatten.10", plain, "s"),
        row("secagg.flatten_and_mask.10", masked, "s"),
        row("secagg.client_extra.ratio.10", (masked - plain) / floor, "ratio", RATIO_GOAL),
        row("secagg.client_extra_with_rounding.ratio.10", masked / floor, "ratio"),
    ]
    share = statistics.median(seconds(lambda: cohort.share(site)) for _ in range(REPETITIONS))
    rows.append(row("secagg.client_masks_and_shares.10", masked + share, "s"))
    vector = words * grid.dtype.itemsize
    rows.append(row("secagg.upload.bytes.10", vector + message_bytes(cohort, site), "B"))
    ratio = (vector + message_bytes(cohort, site)) / vector
    rows.append(row("secagg.upload.ratio.10", ratio, "ratio", UPLOAD_GOAL))
    rows.append(row("secagg.server_unmask_one_dropped.10", unmask(cohort, words), "s"))


def message_bytes(cohort: Cohort, site: str) -> int:
    """Bytes of all that the site says in a round in which one other drops out, but its vector."""
    for each in cohort.sites:
        cohort.share(each)
    survivors = cohort.sites[:-1]
    signature = secagg.check_consistency(cohort.identities[site], survivors, cohort.terms)
    messages: list[SiteKeys | Shares | Signatures | Revealed] = [
        next(keys for keys in cohort.roster if keys.site == site),
        Shares(cohort.shared[site]),
        Signatures({site: signature}),
        cohort.unmask(site, survivors),
    ]
    return sum(len(json.dumps(message.to_json())) for message in messages)


def unmask(cohort: Cohort, words: int) -> float:
    """The server's seconds to take the masks off a sum from which the last site dropped out."""
    survivors = cohort.sites[:-1]
    revealed = {site: cohort.unmask(site, survivors) for site in survivors}
    total = np.zeros(words, np.uint32)
    return seconds(
        lambda: secagg.unmask_sum(total, cohort.sites, survivors, revealed, cohort.terms)
    )


def many_sites(rows: list[Row], neighbours: int | None) -> None:
    """100 sites and a small vector: seconds of one site, and of the server with one dropped."""
    cohort, site = Cohort(MANY, neighbours), "site-003"
    secrets, terms = cohort.secrets[site], cohort.terms
    for each in cohort.sites:
        cohort.share(each)
    inbox, survivors = cohort.inbox(site), cohort.sites[:-1]
    signatures = {
        s: secagg.check_consistency(cohort.identities[s], survivors, terms) for s in survivors
    }

    def client() -> None:
        secagg.check_roster(
            cohort.roster, site, secrets, cohort.accepted, cohort.context, cohort.threshold,
            neighbours,
        )  # fmt: skip
        cohort.share(site)
        secagg.check_inbox(site, secrets, inbox, terms)
        secagg.masked_input(np.zeros(MANY_WORDS, np.uint32), site, secrets, cohort.sites, terms)
        secagg.check_signatures(survivors, signatures, cohort.accepted, terms)
        secagg.unmask(site, secrets, inbox, cohort.sites, survivors, terms)

    kind = "complete" if neighbours is None else f"sparse_{neighbours}"
    rows.append(row(f"secagg.client.100.{kind}", min(seconds(client) for _ in range(3)), "s"))
    rows.append(row(f"secagg.server_unmask.100.{kind}", unmask(cohort, MANY_WORDS), "s"))


_FLOWER = """
import json, os, sys, time
import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    factor_combine, parameters_addition, parameters_mod, parameters_subtraction)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import (
    pseudo_rand_gen, share_keys_plaintext_concat)
from cryptography.hazmat.primitives.asymmetric import ec

shapes, sites, threshold, bits, repetitions = json.load(sys.stdin)
rng = np.random.default_rng(0)
update = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
own = ec.generate_private_key(ec.SECP384R1())
peers = [ec.generate_private_key(ec.SECP384R1()).public_key() for _ in range(sites - 1)]

def client():
    seed, key = os.urandom(32), os.urandom(185)
    b, sk = create_shares(seed, threshold, sites), create_shares(key, threshold, sites)
    for index, peer in enumerate(peers):
        plaintext = share_keys_plaintext_concat(0, index, b[index], sk[index])
        encrypt(generate_shared_key(own, peer), plaintext)
    vector = factor_combine(1, quantize(update, 1.0, 2**bits))
    shapes = [array.shape for array in vector]
    vector = parameters_addition(vector, pseudo_rand_gen(seed, 2**32, shapes))
    for index, peer in enumerate(peers):
        mask = pseudo_rand_gen(generate_shared_key(own, peer), 2**32, shapes)
        vector = (parameters_addition if index % 2 else parameters_subtraction)(vector, mask)
    return sum(array.nbytes for array in parameters_mod(vector, 2**32))

taken = []
for _ in range(repetitions):
    begin = time.perf_counter()
    size = client()
    taken.append(time.perf_counter() - begin)
print(json.dumps({"seconds": sorted(taken)[len(taken) // 2], "bytes": size}))
"""


def flower(rows: list[Row]) -> None:
    """The same work by Flower's functions, or a row that says it does not install here."""
    work = [list(layout().values()), SITES, secagg.default_threshold(SITES), BITS, 3]
    with tempfile.TemporaryDirectory(prefix="fedcore-benchmark-") as folder:
        python = str(Path(folder) / "bin" / "python")
        try:
            venv.create(folder, with_pip=True)
            install = [python, "-m", "pip", "install", "--quiet", FLOWER]
            subprocess.run(install, check=True, capture_output=True, timeout=600)
            done = subprocess.run(
                [python, "-c", _FLOWER],
                input=json.dumps(work), capture_output=True, text=True, check=True, timeout=600,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            print(f"{FLOWER} does not install or run here: {error}", file=sys.stderr)
            rows.append(row("secagg.flower.not_installed", 1, "count"))
            return
    told = json.loads(done.stdout.splitlines()[-1])
    ours = {each["name"]: each["value"] for each in rows}
    own = ours["secagg.client_masks_and_shares.10"]
    rows.append(row("secagg.flower.client_masks_and_shares.10", told["seconds"], "s"))
    rows.append(row("secagg.flower.vector.bytes.10", told["bytes"], "B"))
    rows.append(row("secagg.ours_to_flower.ratio.10", own / told["seconds"], "ratio", FLOWER_GOAL))


def main(results: list[Row]) -> list[Row]:
    """Measure; append the rows to ``results`` and return them."""
    rows: list[Row] = []
    one_site(rows)
    for neighbours in (None, secagg.neighbours(MANY)[0]):
        many_sites(rows, neighbours)
    flower(rows)
    results.extend(rows)
    return rows


def row(name: str, value: float, unit: str, goal: float | None = None) -> Row:
    met = None if goal is None else math.isfinite(value) and value <= goal
    return {"name": name, "value": round(value, 4), "unit": unit, "goal": goal, "met": met}


if __name__ == "__main__":
    for result in main([]):
        print(json.dumps(result))
