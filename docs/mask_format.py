#!/usr/bin/env python3
"""Mask format v1, written from docs/mask-format.md alone: a second implementation, in plain Python.

    python3 docs/mask_format.py                  checks the published vectors
    python3 docs/mask_format.py --misread NAME   reads the page wrongly on purpose, and lists the vectors that show it
    python3 docs/mask_format.py --misread all    every misreading there is; one that no vector shows is a failure
    python3 docs/mask_format.py --write          writes the vectors
"""

import functools
import multiprocessing
import pathlib
import sys
from collections import deque
from fractions import Fraction

# ---- The page. Section by section; nothing here knows of vectors or misreadings.

M32, M64 = 2**32 - 1, 2**64 - 1
TILE, BLOCK, LANES = 16384, 512, 8


def threshold_of(p):
    """T = round((1 - p) * 2^64), ties to even, for the exact value of the double p."""
    return round((1 - Fraction(p)) * 2**64)


def philox4x32(counter, key):
    """Philox4x32-10: four 32-bit words from a counter of four and a key of two."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & M32, p0 >> 32 ^ c3 ^ k1, p0 & M32
        k0, k1 = k0 + 0x9E3779B9 & M32, k1 + 0xBB67AE85 & M32
    return c0, c1, c2, c3


def halves(x):
    return x & M32, x >> 32


def tile_lanes(seed, offset, tile):
    """The states of a tile's eight lanes."""
    counter = halves(seed) + halves(offset)
    lanes = []
    for lane in range(LANES):
        w = 16 * tile + 2 * lane + 1
        a = philox4x32(counter, halves(w))
        b = philox4x32(counter, halves(w - 1))
        lanes.append([a[0] | a[1] << 32, a[2] | a[3] << 32, w, b[0] | b[1] << 32])
    return lanes


def rotl(x, n):
    return (x << n | x >> 64 - n) & M64


def xoshiro256pp(state):
    """One output of xoshiro256++ (Blackman and Vigna); the list `state` moves on."""
    s0, s1, s2, s3 = state
    output = rotl(s0 + s3 & M64, 23) + s0 & M64
    s2, s3 = s2 ^ s0, s3 ^ s1
    state[:] = s0 ^ s3, s1 ^ s2, s2 ^ s1 << 17 & M64, rotl(s3, 45)
    return output


def draw_of(lanes):
    """A function that makes a draw: one output of each of the lanes."""
    return lambda: [xoshiro256pp(lane) for lane in lanes]


def block_words(draw, threshold):
    """The next block, as eight words."""
    if threshold % 2**60 == 0:
        return block_by_digits(draw, threshold)
    return block_by_nibbles(draw, threshold)


def block_by_digits(draw, threshold):
    below, equal, rest = [0] * LANES, [M64] * LANES, threshold
    while rest:
        for lane, u in enumerate(draw()):
            if rest >> 63:
                below[lane] |= equal[lane] & ~u
                equal[lane] &= u
            else:
                equal[lane] &= ~u
        rest = rest << 1 & M64
    return below


def weights(threshold):
    """w0 to w4: how many of 2^68 cases have a certain value with so many one-bits."""
    t, d = threshold, 2**64 - threshold
    w1 = t * d**3 >> 188
    w2 = t**2 * d**2 >> 188
    w3 = t**3 * d >> 188
    w4 = 16 * t - w1 - 3 * w2 - 3 * w3
    w0 = 16 * d - 3 * w1 - 3 * w2 - w3
    return w0, w1, w2, w3, w4


@functools.lru_cache(maxsize=None)
def alias_table(threshold):
    """The limits t and the aliases of the sixteen columns."""
    w = weights(threshold)
    rest = [w[bin(value).count("1")] for value in range(16)]
    limit, alias = [0] * 16, list(range(16))
    small = deque(value for value in range(16) if rest[value] < 2**64)
    large = deque(value for value in range(16) if rest[value] >= 2**64)
    while small:
        s = small.popleft()
        l = large[0]
        limit[s], alias[s] = rest[s], l
        rest[l] -= 2**64 - rest[s]
        if rest[l] < 2**64:
            small.append(large.popleft())
    return limit, alias


def block_by_nibbles(draw, threshold):
    limit, alias = alias_table(threshold)
    i, a, b, c = draw(), draw(), draw(), draw()
    words, undecided = [0] * LANES, []
    for lane in range(LANES):
        results, open_nibbles = lane_nibbles(i[lane], a[lane], b[lane], c[lane], limit, alias)
        for n, value in results:
            words[lane] |= value << 4 * n
        undecided.append(open_nibbles)
    # Settling.
    while any(undecided):
        for lane, u in enumerate(draw()):
            if undecided[lane]:
                n, column, used = undecided[lane].pop(0)
                value = column if u < limit[column] << used & M64 else alias[column]
                words[lane] |= value << 4 * n
    return words


def lane_nibbles(i, a, b, c, limit, alias):
    """What a lane's four words decide: pairs (nibble, result); and what they leave open, lowest
    first: triples (nibble, column, bits used)."""
    results, open_nibbles = [], []
    for j in range(8):
        ties = []
        for n, firsts in ((2 * j, a), (2 * j + 1, b)):
            column = i >> 4 * n & 15
            first, of_limit = firsts >> 8 * j & 255, limit[column] >> 56
            if first == of_limit:
                ties.append((n, column))
            else:
                results.append((n, column if first < of_limit else alias[column]))
        if len(ties) == 2:
            open_nibbles += [(n, column, 8) for n, column in ties]
        for n, column in ties if len(ties) == 1 else []:
            second, of_limit = c >> 8 * j & 255, limit[column] >> 48 & 255
            if second == of_limit:
                open_nibbles.append((n, column, 16))
            else:
                results.append((n, column if second < of_limit else alias[column]))
    return results, open_nibbles


def mask(seed, offset, p, first, length):
    """The bits of elements first .. first + length - 1, as an integer: bit j is element first + j."""
    threshold = threshold_of(p)
    if threshold in (0, 2**64):
        return (1 << length) - 1 if threshold else 0
    bits, index, draw = 0, first // BLOCK * BLOCK, None
    while index < first + length:
        tile, block = index // TILE, index % TILE // BLOCK
        if draw is None or block == 0:
            draw = draw_of(tile_lanes(seed, offset, tile))
            for _ in range(block):
                block_words(draw, threshold)
        for lane, word in enumerate(block_words(draw, threshold)):
            # Elements before `first` fall off at the bottom.
            at = index + 64 * lane - first
            bits |= word << at if at >= 0 else word >> -at
        index += BLOCK
    return bits & (1 << length) - 1


# ---- End of the page.

DATA = pathlib.Path(__file__).resolve().parent.parent / "crates/sorix-kernels/tests/data"
HALF_BELOW, HALF_ABOVE, ALMOST_1 = 0.5 - 2.0**-54, 0.5 + 2.0**-53, 1 - 2.0**-53

# Every regime of the digits of T.
RATES = [
    *(0.0, 5e-324, 2.0**-65, 2.0**-65 * (1 + 2.0**-52), 3 * 2.0**-65, 2.0**-64, 5 * 2.0**-65, 1.0),
    *(0.5, 0.25, 0.75, 0.125, 0.375, 0.625, 0.0625, 0.4375, 0.6875, 0.9375),
    *(0.03125, 0.46875, 0.53125, 0.96875, 2.0**-9, 1 - 2.0**-9, HALF_BELOW, HALF_ABOVE, ALMOST_1),
    *(0.1, 0.2, 0.3, 1 / 3, 0.7, 0.9, 1e-4, 2.0**-40, 1 - 2.0**-40, 1e-300, 0.999999),
    *(2.0**-12 - 2.0**-65, 2.0**-12 - 3 * 2.0**-65),
]


def mask_cases():
    """Windows of masks: seed, offset, p, first, length."""
    seeds = [0, 1, 42, 0x0123456789ABCDEF, M64]
    offsets = [0, 7, 2**32 + 5, M64]
    firsts = [
        *(0, 512 * 5 + 3, TILE - 65, 3 * TILE + 100, 2**32 * TILE - 70, (2**40 + 1) * TILE + 1),
        *(2**63 - TILE + 8 * 512 + 6, 2**63 - 100, 2**63 + (2**20 + 1) * TILE + 130, 2**64 - TILE + 77),
    ]
    for i, p in enumerate(RATES):
        for j in range(0, 10, 3):
            yield seeds[(i + j) % 5], offsets[(2 * i + j) % 4], p, firsts[(i + j) % 10], 259
    # Whole tiles, and one element more.
    for p in (0.1, 0.5, 0.3, 0.25):
        yield 42, 7, p, 0, 2 * TILE + 1
    for p in (0.1, 0.6875, 0.5):
        # In the middle of a nibble, a byte, a word; on each side of a word, a block, a tile; one element.
        for first, length in ((2, 1), (5, 7), (62, 4), (64, 64), (509, 6), (TILE - 1, 2), (TILE - 513, 1026)):
            yield 9, 2**63, p, first, length
        # The last tile of all, its last block, and the last element of all.
        for length in (TILE, 515, 64, 3, 1):
            yield 5, 6, p, 2**64 - length, length
        yield 3, 4, p, 77, 0
        yield 3, 4, p, M64, 0
    # Blocks that settle, found by search among the seeds, from the middle of the block before on.
    for p, seed, block in SETTLED:
        yield seed, 7, p, max(0, 512 * block - 99), 512 * 3


# p, seed, and the block of tile 0 in which some nibble is open.
SETTLED = [
    # Both nibbles of a byte tie: two rounds.
    *((0.1, 53, 4), (0.3, 12, 15), (HALF_BELOW, 123, 4), (ALMOST_1, 99, 5)),
    # The same, and one of the two is in a column that is full.
    *((0.1, 143, 17), (0.9, 74, 7), (2.0**-40, 40, 13)),
    # The same in one lane, while in another lane a nibble ties twice.
    (0.03125, 40, 13),
    # A nibble ties twice, in a full column.
    *((0.1, 245, 22), (0.9, 105, 22), (0.3, 43, 24), (HALF_BELOW, 245, 22), (ALMOST_1, 248, 5)),
    # A limit of 2^64 - 1 or full, by the last unit of a weight.
    *((HALF_ABOVE, 61, 25), (HALF_BELOW, 122, 1)),
    # Three rounds: in one lane, both nibbles of a byte tie and a nibble of another byte ties twice.
    *((0.1, 145006, 17), (0.1, 160453, 7), (0.3, 27116, 0)),
    # Four rounds: both nibbles of two bytes tie.
    *((0.3, 109690, 1), (0.1, 2283888, 26)),
]


def mask_row(page, seed, offset, p, first, length):
    bits = page["mask"](seed, offset, p, first, length)
    return f"{seed},{offset},{p!r},{first},{length},{bits.to_bytes((length + 7) // 8, 'little').hex()}"


def law_row(page, p):
    threshold = page["threshold_of"](p)
    if threshold in (0, 2**64):
        return f"{p!r},{threshold},0,,"
    if threshold % 2**60 == 0:
        draws = 64 - (threshold & -threshold).bit_length() + 1
        return f"{p!r},{threshold},{draws},,"
    limit, alias = page["alias_table"](threshold)
    return f"{p!r},{threshold},4,{hex_words(limit)},{''.join(f'{a:x}' for a in alias)}"


def hex_words(words):
    return "".join(f"{word:016x}" for word in words)


def block_cases():
    """Draws made to measure: a threshold, and draws that leave some nibbles open."""
    everything = [(j, "both") for j in range(8)]
    patterns = [
        {},
        {5: [(2, "low")]},
        {0: [(7, "high")], 7: [(0, "high"), (3, "both")]},
        {3: everything, 4: [(j, "low") for j in range(8)]},
        {lane: everything[:lane] for lane in range(8)},
    ]
    for i, p in enumerate((0.1, 0.3, 0.9, HALF_BELOW, 2.0**-40, 0.03125, ALMOST_1)):
        for k, opened in enumerate(patterns):
            yield threshold_of(p), planted_draws(threshold_of(p), 100 * i + k, opened)
    for i, p in enumerate((0.5, 0.25, 0.375, 0.6875, 0.9375)):
        draw = draw_of(tile_lanes(1000 + i, 0, 0))
        digits = threshold_of(p) >> 60
        yield threshold_of(p), [draw() for _ in range(4 - ((digits & -digits).bit_length() - 1))]


def planted_draws(threshold, seed, opened):
    """Random draws, changed so that the nibbles named by `opened` stay open: by lane, a list of bytes j and
    which of its nibbles tie. The numbers that settle them are at, just below and just above the limit."""
    limit, _ = alias_table(threshold)
    draw = draw_of(tile_lanes(seed, 0, 0))
    i, a, b, c = draw(), draw(), draw(), draw()
    pending = [[] for _ in range(LANES)]
    for lane in range(LANES):
        if len(opened.get(lane, [])) == 8:
            i[lane] = 0xFEDCBA9876543210  # every column once
        for j, which in sorted(opened.get(lane, [])):
            low, high = limit[i[lane] >> 8 * j & 15], limit[i[lane] >> 8 * j + 4 & 15]
            first = [low >> 56, high >> 56]
            if which == "low":
                first[1] ^= 0x55
                second, left = low >> 48 & 255, [low << 16]
            elif which == "high":
                first[0] ^= 0x55
                second, left = high >> 48 & 255, [high << 16]
            else:
                second, left = low >> 48 & 255, [low << 8, high << 8]
            for word, byte in ((a, first[0]), (b, first[1]), (c, second)):
                word[lane] = word[lane] & ~(255 << 8 * j) | byte << 8 * j
            pending[lane] += left
    draws = [i, a, b, c]
    for k in range(16):
        settling = draw()
        for lane, left in enumerate(pending):
            if k < len(left):
                nearby = [left[k], left[k] - 1, left[k] + 1, settling[lane]]
                settling[lane] = nearby[(k + lane + seed) % 4] & M64
        draws.append(settling)
    rounds = [0]

    def replay():
        rounds[0] += 1
        return draws[rounds[0] - 1]

    block_by_nibbles(replay, threshold)
    return draws[: rounds[0]]


def block_row(page, threshold, draws):
    left = deque(draws)
    words = hex_words(page["block_words"](left.popleft, threshold))
    assert not left, "draws are left over"
    return f"{threshold},{''.join(map(hex_words, draws))},{words}"


# By file: the header line, the cases, and what makes the line of a case.
FILES = {
    "mask-format-v1.csv": ("seed,offset,p,first,length,bytes", mask_cases, mask_row),
    "mask-format-v1-laws.csv": ("p,T,draws,limits,aliases", lambda: [(p,) for p in RATES], law_row),
    "mask-format-v1-blocks.csv": ("T,draws,words", block_cases, block_row),
}


def wrong_lines(name, page):
    """The numbers of the lines of a file that a page does not reproduce; the header is line 1."""
    header, cases, row = FILES[name]
    lines, cases = (DATA / name).read_text().splitlines(), list(cases())
    if lines[0] != header or len(lines) != 1 + len(cases):
        sys.exit(f"{DATA / name}: expected {header} and {len(cases)} lines")
    wrong = []
    for number, (line, case) in enumerate(zip(lines[1:], cases), 2):
        try:
            if row(page, *case) != line:
                wrong.append(number)
        except (ArithmeticError, AssertionError, AttributeError, LookupError):
            # A page misread may come to an end that is none.
            wrong.append(number)
    return wrong


# ---- Misreadings of the page. By name: pairs of what stands above and what it is taken for.

PRODUCTS = ("t * d**3", "t**2 * d**2", "t**3 * d")
WHILE_OPEN = "while any(undecided):"
SETTLING = "for lane, u in enumerate(draw()):\n            if undecided[lane]:"
BY_DIGITS = "if threshold % 2**60 == 0:"
DRAWS = "i, a, b, c = draw(), draw(), draw(), draw()"
FIRST_TIES = "if first == of_limit:"
SECOND_TIES = "if second == of_limit:"
UNTIL_EITHER_ENDS = ("while small:", "while small and large:")
ANY_TIE = (
    "any((first[k] >> 8 * j & 255) == limit[i[k] >> 8 * j + shift & 15] >> 56"
    " for k in range(8) for j in range(8) for first, shift in ((a, 0), (b, 4)))"
)
MISREADINGS = {
    # The threshold.
    "threshold-in-double": [("(1 - Fraction(p)) * 2**64", "(1 - p) * 2.0**64")],
    "threshold-floored": [("round((1 - Fraction(p)) * 2**64)", "int((1 - Fraction(p)) * 2**64)")],
    "threshold-ties-up": [("round((1 - Fraction(p)) * 2**64)", "int((1 - Fraction(p)) * 2**64 + Fraction(0.5))")],
    "threshold-of-2^64-1": [("(1 - Fraction(p)) * 2**64", "(1 - Fraction(p)) * M64")],
    "digits-three": [(BY_DIGITS, "if threshold % 2**61 == 0:")],
    "digits-five": [(BY_DIGITS, "if threshold % 2**59 == 0:")],
    "digits-significant": [(BY_DIGITS, "if threshold // (threshold & -threshold) < 16:")],
    "digits-always-four-draws": [("while rest:", "for _ in range(4):")],
    "digits-without-the-last": [("while rest:", "while rest & M64 >> 1:")],
    "digits-equal-kept": [("M64\n    return below", "M64\n    return [x | y for x, y in zip(below, equal)]")],
    # Tiles, lanes, seeding.
    "tile-8192": [("TILE, BLOCK, LANES = 16384", "TILE, BLOCK, LANES = 8192")],
    "tile-without-top-bit": [("16 * tile", "16 * (tile % (2**63 // TILE))")],
    "tile-32-bits": [("16 * tile", "16 * (tile % 2**32)")],
    "index-signed": [("index // TILE,", "(index - (index >> 63 << 64)) // TILE % 2**60,")],
    "key-through-double": [("16 * tile + 2 * lane + 1", "int(16.0 * tile + 2 * lane + 1)")],
    "key-without-lane": [("2 * lane + 1", "1")],
    "key-w+1": [("halves(w - 1)", "halves(w + 1)")],
    "seed-32-bits": [("halves(seed)", "halves(seed & M32)")],
    "offset-32-bits": [("halves(offset)", "halves(offset & M32)")],
    "seed-after-offset": [("halves(seed) + halves(offset)", "halves(offset) + halves(seed)")],
    "s3-upper-half": [("b[0] | b[1] << 32", "b[2] | b[3] << 32")],
    "lanes-backwards": [("64 * lane - first", "64 * (7 - lane) - first")],
    "blocks-before-not-made": [("range(block)", "range(0)")],
    # The table.
    "weights-rounded": [(f"{w} >> 188", f"{w} + 2**187 >> 188") for w in PRODUCTS],
    "weights-in-double": [(f"{w} >> 188", f"int({w} / 2.0**188)") for w in PRODUCTS],
    "weights-of-zeros": [('bin(value).count("1")', '4 - bin(value).count("1")')],
    "weights-w4-floored": [("16 * t - w1 - 3 * w2 - 3 * w3", "t**4 >> 188"), UNTIL_EITHER_ENDS],
    "d-off-by-one": [("2**64 - threshold", "M64 - threshold"), UNTIL_EITHER_ENDS],
    "small-last-first": [("small.popleft()", "small.pop()")],
    "small-to-the-front": [("small.append(", "small.appendleft(")],
    "small-decreasing": [("in range(16) if rest[value] < 2**64", "in range(15, -1, -1) if rest[value] < 2**64")],
    "large-last-first": [("l = large[0]", "l = large[-1]"), ("large.popleft()", "large.pop()")],
    "large-to-the-back": [
        ("rest[l] -= 2**64 - rest[s]", "large.rotate(-1); rest[l] -= 2**64 - rest[s]"),
        ("large.popleft()", "large.pop()"),
    ],
    "full-limit-2^64-1": [("limit, alias = [0] * 16", "limit, alias = [M64] * 16")],
    "full-never-ties": [(FIRST_TIES, "if first == of_limit and alias[column] != column:")],
    # The four draws.
    "draws-a-i-b-c": [(DRAWS, DRAWS.replace("i, a", "a, i", 1))],
    "draws-i-b-a-c": [(DRAWS, DRAWS.replace("a, b", "b, a", 1))],
    "draws-i-a-c-b": [(DRAWS, DRAWS.replace("b, c", "c, b", 1))],
    "draws-c-i-a-b": [(DRAWS, DRAWS.replace("i, a, b, c", "c, i, a, b", 1))],
    "c-only-for-ties": [(DRAWS, f"i, a, b = draw(), draw(), draw()\n    c = draw() if {ANY_TIE} else [0] * 8")],
    "c-for-both-nibbles": [("if len(ties) == 2:", "if False:"), ("in ties if len(ties) == 1 else []", "in ties")],
    "c-for-the-low-of-both": [
        ("open_nibbles += [(n, column, 8) for n, column in ties]", "open_nibbles.append((*ties[1], 8))"),
        ("in ties if len(ties) == 1 else []", "in ties[:1]"),
    ],
    "columns-high-first": [("i >> 4 * n & 15", "i >> 4 * (n ^ 1) & 15")],
    "columns-backwards": [("i >> 4 * n & 15", "i >> 60 - 4 * n & 15")],
    "results-high-first": [
        ("value << 4 * n\n        undecided", "value << 4 * (n ^ 1)\n        undecided"),
        ("value << 4 * n\n    return", "value << 4 * (n ^ 1)\n    return"),
    ],
    "a-for-the-lower-half": [("((2 * j, a), (2 * j + 1, b))", "((j, a), (8 + j, b))")],
    "a-for-high-nibbles": [("((2 * j, a), (2 * j + 1, b))", "((2 * j, b), (2 * j + 1, a))")],
    "firsts-byte-order": [("firsts >> 8 * j & 255", "firsts >> 56 - 8 * j & 255")],
    "seconds-byte-order": [("c >> 8 * j & 255", "c >> 56 - 8 * j & 255")],
    "seconds-by-nibble": [("c >> 8 * j & 255", "c >> 8 * (n & 7) & 255")],
    "first-of-the-lowest-byte": [("limit[column] >> 56", "limit[column] & 255")],
    "second-of-the-third-byte": [("limit[column] >> 48 & 255", "limit[column] >> 40 & 255")],
    "first-tie-is-column": [(FIRST_TIES, "if False:"), ("first < of_limit", "first <= of_limit")],
    "first-tie-is-alias": [(FIRST_TIES, "if False:")],
    "second-ignored": [(SECOND_TIES, "if True:"), ("(n, column, 16)", "(n, column, 8)")],
    "second-tie-is-column": [(SECOND_TIES, "if False:"), ("second < of_limit", "second <= of_limit")],
    "second-tie-is-alias": [(SECOND_TIES, "if False:")],
    "column-and-alias-exchanged": [("column if first < of_limit", "column if first >= of_limit")],
    # Settling.
    "settle-or-equal": [("if u < limit", "if u <= limit")],
    "settle-unshifted": [("limit[column] << used & M64", "limit[column]")],
    "settle-8-for-16": [("(n, column, 16)", "(n, column, 8)")],
    "settle-16-for-8": [("(n, column, 8)", "(n, column, 16)")],
    "settle-highest-first": [(".pop(0)", ".pop()")],
    "settle-when-nothing-is-open": [(WHILE_OPEN, "for _ in range(max(1, *map(len, undecided))):")],
    "settle-once": [(WHILE_OPEN, "for _ in range(min(1, max(map(len, undecided)))):")],
    "settle-twice": [(WHILE_OPEN, "for _ in range(min(2, max(map(len, undecided)))):")],
    "settle-thrice": [(WHILE_OPEN, "for _ in range(min(3, max(map(len, undecided)))):")],
    "settle-lane-by-lane": [
        (
            "return lambda: [xoshiro256pp(lane) for lane in lanes]",
            "draw = lambda: [xoshiro256pp(lane) for lane in lanes]\n    draw.lanes = lanes\n    return draw",
        ),
        (SETTLING, SETTLING.replace("draw()", "[u and xoshiro256pp(*s) for u, *s in zip(undecided, draw.lanes)]")),
    ],
    "settle-a-lane-with-one-number": [("if undecided[lane]:", "while undecided[lane]:")],
    "settle-one-lane-a-draw": [
        (SETTLING, SETTLING.replace("enumerate(draw())", "[next(x for x in enumerate(draw()) if undecided[x[0]])]"))
    ],
}


def misread_page(name):
    """The page with a misreading made: this file down to "End of the page", changed and run."""
    source = pathlib.Path(__file__).read_text().split("# ---- End of the page.")[0]
    for right, wrong in MISREADINGS[name]:
        assert source.count(right) == 1 and right != wrong, (name, right)
        source = source.replace(right, wrong)
    page = {}
    exec(compile(source, name, "exec"), page)
    return page


def misread(name):
    """By file, how many lines show the misreading, and where the first is; in words."""
    page = misread_page(name)
    wrong = {file: wrong_lines(file, page) for file in FILES}
    shown = [f"{file}: {len(lines)} lines, from {lines[0]} on" for file, lines in wrong.items() if lines]
    return name, "; ".join(shown)


def main(arguments):
    assert philox4x32((0, 0, 0, 0), (0, 0)) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    if arguments == ["--write"]:
        for name, (header, cases, row) in FILES.items():
            lines = [header] + [row(globals(), *case) for case in cases()]
            (DATA / name).write_text("\n".join(lines) + "\n")
    elif not arguments:
        for name in FILES:
            wrong = wrong_lines(name, globals())
            if wrong:
                sys.exit(f"{DATA / name} does not hold what this implementation computes: lines {wrong}")
            print(f"{name}: reproduced")
    elif len(arguments) == 2 and arguments[0] == "--misread" and arguments[1] in [*MISREADINGS, "all"]:
        names = list(MISREADINGS) if arguments[1] == "all" else arguments[1:]
        with multiprocessing.Pool() as pool:
            found = dict(pool.imap(misread, names))
        for name, shown in found.items():
            print(f"{name}: {shown or 'NOT SHOWN by any vector'}")
        if not all(found.values()):
            sys.exit("some misreadings pass all vectors")
    else:
        expected = f"expected no argument, --write, --misread all, or --misread and one of {', '.join(MISREADINGS)}"
        sys.exit(f"{expected}; got {arguments}")


if __name__ == "__main__":
    main(sys.argv[1:])
