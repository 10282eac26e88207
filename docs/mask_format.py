#!/usr/bin/env python3
"""Mask format v1, written from docs/mask-format.md alone: a second implementation, in plain Python.

    python3 docs/mask_format.py            checks the published vectors
    python3 docs/mask_format.py --write    prints them
"""

import pathlib
import sys
from fractions import Fraction

VECTORS = pathlib.Path(__file__).parent.parent / "crates/sorix-kernels/tests/data/mask-format-v1.csv"
M32, M64 = 2**32 - 1, 2**64 - 1
TILE, BLOCK, LANES, DIGITS, ROUNDS = 8192, 512, 8, 9, 1


def philox4x32(counter, key):
    """Philox4x32-10: four 32-bit words from four and a key of two."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & M32, p0 >> 32 ^ c3 ^ k1, p0 & M32
        k0, k1 = k0 + 0x9E3779B9 & M32, k1 + 0xBB67AE85 & M32
    return c0, c1, c2, c3


def rotl(x, n):
    return (x << n | x >> 64 - n) & M64


def xoshiro256pp(state):
    """One output of xoshiro256++ (Blackman and Vigna); the list `state` moves on."""
    s0, s1, s2, s3 = state
    output = rotl(s0 + s3 & M64, 23) + s0 & M64
    s2, s3 = s2 ^ s0, s3 ^ s1
    state[:] = s0 ^ s3, s1 ^ s2, s2 ^ s1 << 17 & M64, rotl(s3, 45)
    return output


def tile_lanes(seed, offset, tile):
    """The states of a tile's eight lanes."""
    split = lambda x: (x & M32, x >> 32)
    lanes = []
    for lane in range(LANES):
        w = 16 * tile + 2 * lane + 1
        a = philox4x32(split(seed) + split(offset), split(w))
        b = philox4x32(split(seed) + split(offset), split(w - 1))
        lanes.append([a[0] | a[1] << 32, a[2] | a[3] << 32, w, b[0] | b[1] << 32])
    return lanes


def block_words(lanes, threshold):
    """The next 512 bits of a tile, as eight words."""
    below, equal, rest = [0] * LANES, [M64] * LANES, threshold
    for _ in range(DIGITS):
        if rest == 0:
            break
        draw = [xoshiro256pp(lane) for lane in lanes]
        for l, u in enumerate(draw):
            if rest >> 63:
                below[l] |= equal[l] & ~u
                equal[l] &= u
            else:
                equal[l] &= ~u
        rest = rest << 1 & M64
    rounds = 0
    while rest and (rounds < ROUNDS or any(equal)):
        rounds += 1
        draw = [xoshiro256pp(lane) for lane in lanes]
        for l, u in enumerate(draw):
            lowest = equal[l] & -equal[l]
            if u < rest:
                below[l] |= lowest
            equal[l] ^= lowest
    return below


def threshold_of(p):
    """round((1 - p) * 2^64), ties to even, for the exact value of the double p."""
    return round((1 - Fraction(p)) * 2**64)


def mask(seed, offset, p, first, length):
    """The bits of elements first .. first + length - 1, as an integer: bit i is element first + i."""
    threshold = threshold_of(p)
    if threshold in (0, 2**64):
        return (1 << length) - 1 if threshold else 0
    first_tile, last_tile = first // TILE, (first + length - 1) // TILE
    bits = 0
    for tile in range(first_tile, last_tile + 1):
        lanes = tile_lanes(seed, offset, tile)
        for block in range(TILE // BLOCK):
            for l, word in enumerate(block_words(lanes, threshold)):
                bits |= word << (tile - first_tile) * TILE + block * BLOCK + 64 * l
    return bits >> first - first_tile * TILE & (1 << length) - 1


def published_cases():
    seeds = [0, 1, 42, 0x0123456789ABCDEF, M64]
    offsets = [0, 7, 2**32 + 5, M64]
    firsts = [0, 512 * 5 + 3, TILE - 65, 3 * TILE + 100, 2**32 * TILE - 70, (2**40 + 1) * TILE + 1]
    rates = [0.0, 2.0**-40, 0.1, 0.25, 0.3, 0.5, 0.9, 1 - 2.0**-40, 1.0]
    for i, p in enumerate(rates):
        for j, first in enumerate(firsts):
            yield seeds[(i + j) % 5], offsets[(2 * i + j) % 4], p, first, 130
    for p in (0.1, 0.5, 0.3):
        yield 42, 7, p, 0, 2 * TILE + 1


def row(seed, offset, p, first, length):
    bits = mask(seed, offset, p, first, length)
    return f"{seed},{offset},{p!r},{first},{length},{bits.to_bytes((length + 7) // 8, 'little').hex()}"


def main():
    assert philox4x32((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    rows = ["seed,offset,p,first,length,bytes"] + [row(*case) for case in published_cases()]
    if sys.argv[1:] == ["--write"]:
        print("\n".join(rows))
    elif sys.argv[1:]:
        sys.exit(f"expected no argument or --write, got {sys.argv[1:]}")
    elif rows == VECTORS.read_text().splitlines():
        print(f"{len(rows) - 1} vectors reproduced")
    else:
        sys.exit(f"{VECTORS} does not hold what this implementation computes")


if __name__ == "__main__":
    main()
