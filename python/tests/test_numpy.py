"""Arrays of numpy: shapes, strides, dtypes, errors."""

import numpy as np
import pytest
import sorix
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = ["float16", "float32", "float64"]


@given(
    x=hnp.arrays(
        dtype=st.sampled_from(DTYPES),
        shape=hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
        elements=st.integers(-100, 100),
    ),
    p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1),
    offset=st.integers(0, 2**64 - 1),
    axes=st.randoms(use_true_random=False),
)
def test_every_array_is_dropped_by_its_row_major_index(x, p, seed, offset, axes):
    order = list(range(x.ndim))
    axes.shuffle(order)
    view = x.transpose(order)
    key = {"seed": seed, "offset": offset}
    y = sorix.dropout(view, p, **key)
    keep = sorix.mask(view.shape, p, **key)
    assert y.shape == view.shape
    assert y.dtype == x.dtype
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(y == 0, ~keep | (view == 0))
    np.testing.assert_array_equal(y, sorix.dropout(view.copy(), p, **key))
    np.testing.assert_array_equal(sorix.dropout_backward(view, keep, p), y)
    assert not np.signbit(y[~keep]).any()


def test_p_0_keeps_and_p_1_drops_even_what_is_not_finite():
    x = np.array([1.0, np.nan, np.inf, -np.inf, -0.0])
    np.testing.assert_array_equal(sorix.dropout(x, 0.0, seed=1), x)
    y = sorix.dropout(x, 1.0, seed=1)
    assert (y == 0).all()
    assert not np.signbit(y).any()


def test_out_gets_the_result_and_may_be_the_input():
    x = np.arange(1000, dtype=np.float32)
    expected = sorix.dropout(x, 0.3, seed=1, offset=2)
    out = np.empty_like(x)
    assert sorix.dropout(x, 0.3, seed=1, offset=2, out=out) is out
    np.testing.assert_array_equal(out, expected)
    assert sorix.dropout(x, 0.3, seed=1, offset=2, out=x) is x
    np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize(
    ("out", "kind", "text"),
    [
        (np.empty((4, 2), np.float32), ValueError, "expected shape [2, 4], got [4, 2]"),
        (np.empty((2, 4), np.float64), TypeError, "expected dtype sorix.float32"),
        (np.empty((4, 2), np.float32).T, ValueError, "row-major order"),
        (np.empty((2, 8), np.float32)[:, ::2], ValueError, "row-major order"),
        ([0.0], TypeError, "expected an array, got list"),
    ],
)
def test_an_output_that_does_not_fit_is_refused(out, kind, text):
    x = np.ones((2, 4), np.float32)
    with pytest.raises(kind, match="out: ") as error:
        sorix.dropout(x, 0.5, seed=1, out=out)
    assert text in str(error.value)


def test_an_output_that_is_read_only_or_overlaps_is_refused_and_not_written():
    x = np.ones(9, np.float32)
    frozen = np.ones(8, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        sorix.dropout(x[:8], 0.5, seed=1, out=frozen)
    with pytest.raises(ValueError, match="read while it is written"):
        sorix.dropout(x[:8], 0.5, seed=1, out=x[1:])
    assert (frozen == 1).all()
    assert (x == 1).all()


def test_input_that_is_read_only_or_unaligned_or_no_array_is_read():
    x = np.ones(8)
    expected = sorix.dropout(x, 0.5, seed=3)
    x.flags.writeable = False
    np.testing.assert_array_equal(sorix.dropout(x, 0.5, seed=3), expected)
    np.testing.assert_array_equal(sorix.dropout([1.0] * 8, 0.5, seed=3), expected)
    unaligned = np.frombuffer(b"?" + x.tobytes(), dtype=np.uint8)[1:].view(np.float64)
    assert not unaligned.flags.aligned
    np.testing.assert_array_equal(sorix.dropout(unaligned, 0.5, seed=3), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_a_residual_is_added_in_one_pass(dtype, p):
    dtype = np.dtype(pytest.importorskip("ml_dtypes").bfloat16 if dtype == "bfloat16" else dtype)
    x = np.linspace(-30, 40, 9000).astype(dtype).reshape(90, 100)
    residual = np.linspace(7, -9, 9000).astype(dtype).reshape(90, 100)
    key = {"seed": 3, "offset": 2**64 - 1}
    y, mask = sorix.dropout_add(x, residual, p, **key, return_mask=True)
    assert y.dtype == dtype
    np.testing.assert_array_equal(mask, sorix.mask(x.shape, p, 3, 2**64 - 1, packed=True))
    # Each product and each sum rounded in the type computed in, and 16 bits once more.
    wide = np.float64 if dtype == np.float64 else np.float32
    scale = wide(1 / (1 - p) if p < 1 else 0.0)
    kept = np.where(sorix.mask(x.shape, p, **key), x.astype(wide) * scale, wide(0))
    np.testing.assert_array_equal(y, (residual.astype(wide) + kept).astype(dtype))
    if wide == dtype:
        np.testing.assert_array_equal(y, residual + sorix.dropout(x, p, **key))

    # Of any strides, by the row-major index; and over the residual itself.
    views = x[::-1, ::2], residual[:, :50][::-1]
    copies = views[0].copy(), views[1].copy()
    expected = sorix.dropout_add(*copies, p, **key)
    np.testing.assert_array_equal(sorix.dropout_add(*views, p, **key), expected)
    assert sorix.dropout_add(*copies, p, **key, out=copies[1]) is copies[1]
    np.testing.assert_array_equal(copies[1], expected)
    same = sorix.dropout_add(x, x, p, **key)
    np.testing.assert_array_equal(same, sorix.dropout_add(x, x.copy(), p, **key))


def test_a_residual_that_does_not_fit_is_refused_and_nothing_is_written():
    x = np.ones((2, 4), np.float32)
    for residual, kind, text in [
        (np.ones((4, 2), np.float32), ValueError, "residual: expected shape [2, 4], got [4, 2]"),
        (np.ones((1, 4), np.float32), ValueError, "residual: expected shape [2, 4], got [1, 4]"),
        (np.ones((2, 4)), TypeError, "residual: expected dtype sorix.float32, got sorix.float64"),
        (np.ones((2, 4), int), TypeError, "expected an array of float16"),
    ]:
        with pytest.raises(kind) as error:
            sorix.dropout_add(x, residual, 0.5, seed=1)
        assert text in str(error.value)
    # x is read where the residual would be overwritten.
    with pytest.raises(ValueError, match="read while it is written"):
        sorix.dropout_add(x, np.ones_like(x), 0.5, seed=1, out=x)
    with pytest.raises(ValueError, match="read while it is written"):
        sorix.dropout_add(x, x, 0.5, seed=1, out=x)
    assert (x == 1).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_p_that_is_no_probability_is_refused(p):
    for call in (
        lambda: sorix.dropout(np.ones(3), p, seed=1),
        lambda: sorix.replay(np.ones(3), p, seed=1),
        lambda: sorix.dropout_add(np.ones(3), np.ones(3), p, seed=1),
        lambda: sorix.ones(3).dropout_add(sorix.ones(3), p, seed=1),
        lambda: sorix.mask(3, p, seed=1),
        lambda: sorix.dropout_backward(np.ones(3), np.zeros(1, np.uint8), p),
        lambda: sorix.nn.Dropout(p),
    ):
        with pytest.raises(ValueError, match="probability"):
            call()


def test_other_dtypes_are_refused():
    for x in (np.ones(3, np.int32), np.ones(3, complex), np.ones(3, ">f4"), ["a"]):
        with pytest.raises(TypeError, match="expected an array of float16"):
            sorix.dropout(x, 0.5, seed=1)


def test_seeds_are_64_bits():
    assert sorix.mask(64, 0.5, 2**64 - 1, 2**64 - 1).any()
    for seed in (-1, 2**64):
        with pytest.raises(OverflowError):
            sorix.mask(3, 0.5, seed)


def test_windows_are_parts_of_the_one_mask():
    whole = sorix.mask(100_000, 0.1, 7, 8)
    for first, length in [(0, 1), (63, 66), (16_383, 20_000), (99_999, 1)]:
        part = sorix.mask(length, 0.1, 7, 8, first=first)
        np.testing.assert_array_equal(part, whole[first : first + length])
    with pytest.raises(ValueError, match="must end at or before"):
        sorix.mask(2, 0.1, 7, 8, first=2**64 - 1)


def test_shards_are_parts_of_the_one_mask():
    whole = sorix.mask((5, 7, 11), 0.4, 7, 8)
    x = np.ones((5, 7, 11), np.float32)
    y = sorix.dropout(x, 0.4, seed=7, offset=8)
    for axis, length in enumerate(whole.shape):
        for start, stop in [(0, length), (1, 3), (2, 2)]:
            shard = sorix.Shard(whole.shape, axis - 3, start, stop)
            part = tuple(slice(start, stop) if k == axis else slice(None) for k in range(3))
            assert shard.part == whole[part].shape
            assert shard.axis == axis
            np.testing.assert_array_equal(
                sorix.mask(shard.part, 0.4, 7, 8, shard=shard), whole[part]
            )
            key = {"seed": 7, "offset": 8, "shard": shard}
            np.testing.assert_array_equal(sorix.dropout(x[part], 0.4, **key), y[part])
            np.testing.assert_array_equal(sorix.replay(x[part], 0.4, **key), y[part])
            added = sorix.dropout_add(x[part], 3 * x[part], 0.4, **key)
            np.testing.assert_array_equal(added, 3 + y[part])
    shard = sorix.Shard((4, 6), 1, 2, 5)
    assert repr(shard) == "Shard(shape=(4, 6), axis=1, start=2, stop=5)"
    with pytest.raises(ValueError, match=r"expected a part of shape \[4, 3\]"):
        sorix.mask((4, 4), 0.4, 7, shard=shard)
    with pytest.raises(ValueError, match="first or shard"):
        sorix.mask((4, 3), 0.4, 7, first=1, shard=shard)
    with pytest.raises(ValueError):
        sorix.Shard((4, 6), 1, 2, 7)
    with pytest.raises(IndexError):
        sorix.Shard((4, 6), 2, 0, 1)


def test_a_mask_that_does_not_fit_is_refused():
    dy = np.ones((3, 3))
    with pytest.raises(ValueError, match="2"):
        sorix.dropout_backward(dy, np.zeros(3, np.uint8), 0.5)
    with pytest.raises(ValueError, match="bit"):
        sorix.dropout_backward(dy, np.full(2, 255, np.uint8), 0.5)
    with pytest.raises(ValueError, match="expected shape"):
        sorix.dropout_backward(dy, np.zeros((1, 3), bool), 0.5)
    with pytest.raises(TypeError, match="mask: "):
        sorix.dropout_backward(dy, [1, 0], 0.5)


def test_memory_that_is_not_there_is_a_memory_error():
    with pytest.raises(MemoryError):
        sorix.mask(2**62, 0.5, 1)


def test_a_large_array_is_the_same_on_every_number_of_threads():
    x = np.ones(9_000_000, np.float32)
    threads = sorix.get_num_threads()
    try:
        sums = []
        for count in (1, 2, 3):
            sorix.set_num_threads(count)
            assert sorix.get_num_threads() == count
            y = sorix.dropout(x, 0.1, seed=1)
            sums.append(hash(y.tobytes()))
    finally:
        sorix.set_num_threads(threads)
    assert len(set(sums)) == 1
    with pytest.raises(ValueError, match="from 1"):
        sorix.set_num_threads(0)
