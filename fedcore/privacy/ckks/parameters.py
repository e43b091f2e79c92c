"""What all parties agree on before a key is made, and what follows from it: precision and size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedcore.errors import ConfigError

LARGEST_MODULUS = {
    128: {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881},
    192: {1024: 19, 2048: 37, 4096: 75, 8192: 152, 16384: 305, 32768: 611},
    256: {1024: 14, 2048: 29, 4096: 58, 8192: 118, 16384: 237, 32768: 476},
}
"""Bits of security → degree → most bits of the modulus, for a ternary secret (Homomorphic
Encryption Standard 2018, https://eprint.iacr.org/2019/939, Table 1, classical attacks)."""

FLOOD = 2.0**10
"""Standard deviation of the noise on a released sum ÷ that of the ciphertexts' own noise."""

_FRESH_VARIANCE = 10.5  # of a coefficient of a fresh error: SEAL's centred binomial of 2 · 21 coins
_TAIL = 8.0  # standard deviations: a Gaussian passes them once in 10^15
_DEGREE = 4096  # the smallest that TenSEAL takes: it wants two primes, and 2048 has room for one
_SPECIAL = 30  # bits of the prime that SEAL sets aside to switch keys, which is not done here
_LARGEST_PRIME = 60


@dataclass(frozen=True)
class Parameters:
    """The ring, the modulus and the scale of CKKS, for sums of at most ``summands`` vectors.

    ``coeff_mod_bit_sizes``: bits of the primes; ciphertexts live modulo all but the last.
    ``bound``: the largest magnitude of a site's value. ``scale``: the integer that stands for
    ``bound``. Raises ConfigError for less than 128-bit security, or
    where a sum could leave the modulus.
    """

    poly_modulus_degree: int
    coeff_mod_bit_sizes: tuple[int, ...]
    scale: float
    bound: float
    summands: int

    def __post_init__(self) -> None:
        degree, total = self.poly_modulus_degree, sum(self.coeff_mod_bit_sizes)
        most = LARGEST_MODULUS[128].get(degree)
        if most is None:
            raise ConfigError(
                f"ckks: poly_modulus_degree is {degree}; use one of {sorted(LARGEST_MODULUS[128])}"
            )
        if total > most:
            raise ConfigError(
                f"ckks: a modulus of {total} bits at degree {degree} has less than 128-bit "
                f"security, which allows {most} bits; use a larger degree or smaller primes"
            )
        if len(self.coeff_mod_bit_sizes) < 2 or self.summands < 1 or not 0 < self.bound < math.inf:
            raise ConfigError("ckks: needs two primes or more, a summand, and a finite bound > 0")
        if not 0 < 4 * self.summands * self.scale <= 2.0**self.modulus_bits:
            raise ConfigError(
                f"ckks: the sum of {self.summands} values at scale {self.scale} does not fit "
                f"{self.modulus_bits} bits; make the cohort smaller"
            )

    @property
    def slots(self) -> int:
        """Values in a ciphertext."""
        return self.poly_modulus_degree // 2

    @property
    def unit(self) -> float:
        """The value that the integer 1 stands for."""
        return self.bound / self.scale

    @property
    def modulus_bits(self) -> int:
        """Bits of the modulus of a ciphertext."""
        return sum(self.coeff_mod_bit_sizes[:-1])

    @property
    def security(self) -> int:
        """Bits of security by the table. Nothing is ever published modulo the last prime, as
        there are no public, relinearisation or rotation keys, so ``modulus_bits`` counts."""
        levels = LARGEST_MODULUS.items()
        return max(b for b, row in levels if self.modulus_bits <= row[self.poly_modulus_degree])

    @property
    def chunk_bytes(self) -> int:
        """Two polynomials, 8 bytes a coefficient and prime: a ciphertext before SEAL packs it."""
        return 2 * self.poly_modulus_degree * 8 * (len(self.coeff_mod_bit_sizes) - 1)

    def chunks(self, length: int) -> int:
        """Ciphertexts that ``length`` values take."""
        return -(-length // self.slots)


def fitting(bound: float, summands: int, bits: int = 20) -> Parameters:
    """The smallest ciphertexts that give a sum within one step of a grid of ``bits`` bits.

    ``bound``: the largest magnitude of a site's value; scale weights in [0, 1] up to it, as all
    share one precision. A step is bound / 2^(bits−1), as behind masks. Additions leave the scale
    as it is, so one prime is enough, of just the bits that sign, sum, precision and noise take. At
    20 bits and 10 sites that is 48: 6.9 times the bytes of float32, where the usual degree 8192
    with primes of 60, 40 and 60 bits takes 14.3 times (``benchmarks/ckks.py``). Raises ConfigError
    where 60 bits do not do.
    """
    noise = _released_error(_DEGREE, summands)
    scale_bits = math.ceil(math.log2(noise) + bits - 1)
    prime = 2 + scale_bits + math.ceil(math.log2(summands))
    if prime > _LARGEST_PRIME:
        raise ConfigError(
            f"ckks: the sum of {summands} values at {bits} bits needs a prime of {prime} bits, and "
            f"SEAL's have at most {_LARGEST_PRIME}; make the cohort smaller"
        )
    primes = (max(prime, _SPECIAL), _SPECIAL)
    return Parameters(_DEGREE, primes, 2.0**scale_bits, float(bound), summands)


def error_bound(parameters: Parameters, n_sites: int) -> float:
    """The most by which a released value differs from the true sum, but for one in 10^15."""
    return _released_error(parameters.poly_modulus_degree, n_sites) * parameters.unit


def expansion(parameters: Parameters) -> float:
    """Bytes of a ciphertext ÷ those of its values as float32, at most: 8 a prime.

    SEAL packs with Zstandard, which finds some of the zeros above ``modulus_bits`` of 64.
    """
    return parameters.chunk_bytes / (4 * parameters.slots)


def sum_deviation(degree: int, n_sites: int) -> float:
    """Standard deviation of the error of a decrypted sum, at most, in ``unit``.

    In a slot's real part, which is a sum of ``degree`` coefficients times cosines: the fresh
    errors, of variance 10.5 a coefficient and independent from site to site; and the encoder's
    rounding, 1/12, twice as heavy because the coefficients of real slots come in equal pairs, and
    the same at all sites where their values are the same.
    """
    return math.sqrt(_FRESH_VARIANCE * n_sites * degree / 2 + n_sites**2 * degree / 12)


def flood_deviation(degree: int, n_sites: int) -> float:
    """Standard deviation of what is added before a sum is released, in ``unit``."""
    return FLOOD * sum_deviation(degree, n_sites)


def _released_error(degree: int, n_sites: int) -> float:
    flood = flood_deviation(degree, n_sites)
    return _TAIL * math.hypot(sum_deviation(degree, n_sites), flood) + flood / 2  # the last: a step
