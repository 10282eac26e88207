"""The vectors of the mask format, which every other door of sorix is tested against too."""

import csv
from pathlib import Path

import numpy as np
import pytest
import sorix

VECTORS = Path(__file__).parents[2] / "crates/sorix-kernels/tests/data/mask-format-v1.csv"


@pytest.fixture(scope="module")
def vectors():
    if not VECTORS.exists():
        pytest.skip(f"{VECTORS.name} is not here: not a checkout of the repository")
    with VECTORS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 200
    return rows


def key(row):
    return {
        "seed": int(row["seed"]),
        "offset": int(row["offset"]),
        "first": int(row["first"]),
    }


def test_masks_are_those_of_the_vectors(vectors):
    for row in vectors:
        p, length = float(row["p"]), int(row["length"])
        expected = np.frombuffer(bytes.fromhex(row["bytes"]), dtype=np.uint8)
        packed = sorix.mask(length, p, **key(row), packed=True)
        np.testing.assert_array_equal(packed, expected)
        bools = np.unpackbits(expected, count=length, bitorder="little").astype(bool)
        np.testing.assert_array_equal(sorix.mask(length, p, **key(row)), bools)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_outputs_are_those_of_the_vectors(vectors, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    for row in vectors:
        p, length = float(row["p"]), int(row["length"])
        packed = np.frombuffer(bytes.fromhex(row["bytes"]), dtype=np.uint8)
        keep = np.unpackbits(packed, count=length, bitorder="little").astype(bool)
        x = np.arange(1, length + 1).astype(dtype)
        # The scale is rounded once, to the type that is computed in; the product once, to its own.
        wide = np.float64 if x.dtype == np.float64 else np.float32
        scale = wide(1.0 / (1.0 - p)) if p < 1.0 else wide(0.0)
        with np.errstate(over="ignore"):
            expected = np.where(keep, (x.astype(wide) * scale).astype(dtype), np.zeros_like(x))
        y, mask = sorix.dropout(x, p, **key(row), return_mask=True)
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(mask, packed)
        np.testing.assert_array_equal(sorix.replay(x, p, **key(row)), y)
        np.testing.assert_array_equal(sorix.dropout_backward(x, mask, p), y)
