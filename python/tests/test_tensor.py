"""Tensors: numpy's results under numpy's and PyTorch's names, and gradients."""

import copy
import pickle
import threading

import numpy as np
import pytest
import sorix
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sorix import tensor

RNG = np.random.default_rng(1)
A = RNG.normal(size=(3, 4))
B = RNG.normal(size=(3, 4))


def grad_of(function, *arrays):
    """The gradients that sorix and central differences give for the sum of a function's output, weighted."""
    tensors = [tensor(array, requires_grad=True) for array in arrays]
    y = function(*tensors)
    weights = np.linspace(1.0, 2.0, y.size).reshape(y.shape)
    (y * tensor(weights)).sum().backward()

    def value(at):
        return float((function(*map(tensor, at)).data * weights).sum())

    numeric = []
    for k, array in enumerate(arrays):
        gradient = np.empty_like(array)
        for index in np.ndindex(array.shape):
            shifted = [a.copy() for a in arrays]
            shifted[k][index] += 1e-6
            above = value(shifted)
            shifted[k][index] -= 2e-6
            gradient[index] = (above - value(shifted)) / 2e-6
        numeric.append(gradient)
    return [x.grad.data for x in tensors], numeric


OPERATIONS = {
    "add": (lambda x, y: x + y, A, B),
    "add broadcast": (lambda x, y: x + y, A, B[:1]),
    "subtract": (lambda x, y: x - y, A, B[:, :1]),
    "multiply": (lambda x, y: x * y, A, B),
    "divide": (lambda x, y: x / y, A, B + 5),
    "matmul": (lambda x, y: x @ y.T, A, B),
    "power": (lambda x: x**3.0, A),
    "numbers": (lambda x: 2.0 - (3.0 / (x * 2.0 + 9.0) - 1.0) / 4.0, A),
    "abs": (lambda x: abs(x), A),
    "exp": (lambda x: x.exp() + x.expm1(), A),
    "log": (lambda x: x.log() + x.log1p() + x.sqrt(), abs(A) + 1),
    "tanh": (lambda x: x.tanh() + x.sigmoid() + x.softplus(), A),
    "relu": (lambda x: x.relu() + x.selu() + x.gelu() + x.gelu("tanh"), A),
    "softmax": (lambda x: x.softmax(1) + x.log_softmax(-1), A),
    "clip": (lambda x: x.clip(-0.5, 0.5), A),
    "maximum": (lambda x, y: x.maximum(y) + x.minimum(y * 2.0), A, B),
    "dropout_add": (lambda x, y: x.dropout_add(y * y, 0.3, seed=1, offset=2), A, B),
    "dropout_add, key kept": (
        lambda x, y: (x * x).dropout_add(y, 0.3, seed=1, save_mask="key"),
        A,
        B,
    ),
    "sum": (lambda x: x.sum(axis=0) * x.mean(axis=(0, 1)), A),
    "var": (lambda x: x.var(axis=1, ddof=1) + x.std(axis=1), A),
    "norm": (lambda x: x.norm(axis=0) + x.logsumexp(axis=0, keepdims=True), A),
    "max": (lambda x: x.max(axis=1, keepdims=True) + x.min(), A),
    "reshape": (lambda x: x.reshape(2, -1)[1] + x.flatten()[6:], A),
    "permute": (lambda x: x.permute(1, 0) + x.transpose(0, 1) + x.T, A),
    "squeeze": (lambda x: x.unsqueeze(0).squeeze(0).unsqueeze(1).squeeze(), A),
    "expand": (lambda x: x.unsqueeze(0).expand(2, 3, 4), A),
    "slices": (lambda x: x[1:, ::2] * x[:2, 1::2] + x[-1, 0], A),
    "lists": (lambda x: x[[0, 2, 0]] + x.index_select(0, [1, 1, 1]), A),
    "new axes": (lambda x: x[..., None, 1] * x[None, :, None, 2], A),
    "concatenate": (lambda x, y: sorix.concatenate([x, y], axis=1), A, B),
    "stack": (lambda x, y: sorix.stack([x, y], axis=-1), A, B),
    "where": (lambda x, y: sorix.where(x > y, x, y * 3.0), A, B),
    "masked_fill": (lambda x: x.masked_fill(tensor(B > 0), 7.0), A),
    "tril": (lambda x: x.tril(1), A),
    "clone": (lambda x: x.clone() * x.contiguous(), A),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_those_of_differences(name):
    function, *arrays = OPERATIONS[name]
    exact, numeric = grad_of(function, *arrays)
    for got, expected in zip(exact, numeric, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-7, rtol=1e-6)


VALUES = {
    "operators": lambda x, y: (x + y * 2.0 - 1.0) / (y**2.0 + 1.0),
    "numpy on the left": lambda x, y: (A + x) * (A - y),
    "matmul": lambda x, y: x @ y.T,
    "compare": lambda x, y: (x < y) + (x >= 0.0) * 2.0,
    "sum": lambda x, y: x.sum(axis=0) + y.mean() + x.max(axis=0) - x.min(axis=(0, 1)),
    "var": lambda x, y: x.var(axis=1) + y.std(axis=-1, ddof=1),
    "keepdims": lambda x, y: x - x.mean(axis=1, keepdims=True),
    "clip": lambda x, y: x.clip(-0.5, 0.5),
    "index": lambda x, y: x[1:3, ::2] + y[[0, 2]][:, 1:3],
    "index more": lambda x, y: x[None, ..., 1] * y[2, -1],
    "reshape": lambda x, y: x.reshape((2, 6)) + y.flatten()[:6],
    "argmax": lambda x, y: x.argmax(axis=1) + y.argmax(axis=-1),
    "tolist": lambda x, y: np.array(x.tolist()),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_are_those_of_numpy(name):
    got = VALUES[name](tensor(A), tensor(B))
    expected = VALUES[name](A, B)
    got = got.data if isinstance(got, sorix.Tensor) else got
    assert got.shape == np.shape(expected)
    np.testing.assert_allclose(got, expected, rtol=1e-14)


@given(
    array=hnp.arrays(np.float64, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6)),
    data=st.data(),
)
def test_an_index_takes_what_numpys_does(array, data):
    index = data.draw(hnp.basic_indices(array.shape, allow_newaxis=True, allow_ellipsis=True))
    steps = index if isinstance(index, tuple) else (index,)
    if any(isinstance(step, slice) and (step.step or 1) < 0 for step in steps):
        with pytest.raises(ValueError, match="goes forward"):
            tensor(array)[index]
    else:
        got, expected = tensor(array)[index], array[index]
        assert got.shape == expected.shape
        np.testing.assert_array_equal(got.data, expected)


def test_a_tensor_says_what_it_is():
    x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert (x.shape, x.ndim, x.size, x.numel(), len(x)) == ((2, 3), 2, 6, 6, 2)
    assert x.dtype is sorix.float64
    assert x.dtype.itemsize == 8
    assert x.strides == (3, 1)
    assert x.is_contiguous()
    assert not x.T.is_contiguous()
    assert repr(x) == "tensor([[1., 2., 3.],\n        [4., 5., 6.]], dtype=sorix.float64)"
    assert [row.tolist() for row in x] == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
    assert x[1, 2].item() == float(x[1, 2]) == int(x[1, 2]) == 6
    assert bool(x[0, 0])
    assert x in {x}
    np.testing.assert_array_equal(np.asarray(x), x.data)
    assert np.asarray(x, dtype=np.float32).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_dtypes(dtype):
    ours = getattr(sorix, dtype)
    assert repr(ours) == f"sorix.{dtype}"
    assert ours.name == dtype
    x = sorix.ones(3, dtype=ours)
    assert x.dtype is ours is sorix.zeros(3, dtype=dtype).dtype
    assert tensor([1, 2], dtype=ours).to("float64").tolist() == [1.0, 2.0]
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    assert x.data.dtype.name == dtype
    assert x.data.dtype.itemsize == ours.itemsize
    back = tensor(x.data)
    assert back.dtype is ours
    assert back.tolist() == [1.0, 1.0, 1.0]
    assert sorix.zeros(3, dtype=x.data.dtype).dtype is ours


def test_numbers_and_integers_are_float64_and_arrays_keep_theirs():
    assert tensor(1).dtype is tensor([1.0]).dtype is sorix.float64
    assert tensor(np.ones(2, np.int8)).dtype is sorix.float64
    assert tensor(np.ones(2, np.float32)).dtype is sorix.float32
    assert tensor(tensor([1.0]), dtype=sorix.float16).dtype is sorix.float16


def test_tensor_copies():
    array = np.ones(3)
    x = tensor(array)
    y = tensor(x)
    array[0] = 5.0
    x.copy_(sorix.zeros(3, dtype="float64"))
    assert y.tolist() == [1.0, 1.0, 1.0]


def test_creation():
    assert sorix.arange(3.0).tolist() == [0.0, 1.0, 2.0]
    assert sorix.arange(1.0, 2.0, 0.5).tolist() == [1.0, 1.5]
    assert sorix.full((2, 1), 7.0).tolist() == [[7.0], [7.0]]
    generator = sorix.Generator(5)
    draws = [sorix.randn(4, generator=generator).tolist() for _ in range(2)]
    assert draws[0] != draws[1]
    assert generator.offset == 2
    assert sorix.randn(4, generator=sorix.Generator(5)).tolist() == draws[0]
    x = sorix.uniform(2.0, 3.0, 10_000, dtype="float64", generator=generator).data
    assert 2.0 <= x.min() < x.max() < 3.0
    assert abs(x.mean() - 2.5) < 0.02
    x = sorix.normal(5.0, 2.0, 10_000, generator=generator).data
    assert abs(x.mean() - 5.0) < 0.1
    assert abs(x.std() - 2.0) < 0.1


def test_gradients_add_up_until_they_are_cleared():
    x = tensor([1.0, 2.0], requires_grad=True)
    for expected in ([2.0, 4.0], [4.0, 8.0]):
        (x * x).sum().backward()
        assert x.grad.tolist() == expected
    x.grad = None
    assert x.grad is None
    y = x * 3.0
    y.backward(tensor([1.0, 10.0]), retain_graph=True)
    y.backward(tensor([1.0, 10.0]))
    assert x.grad.tolist() == [6.0, 60.0]
    with pytest.raises(RuntimeError, match="free"):
        y.backward(tensor([1.0, 10.0]))
    with pytest.raises(TypeError):
        x.grad = tensor([1.0, 1.0])
    x.zero_grad()
    assert x.grad is None


def test_whether_operations_are_recorded_is_a_matter_of_the_thread():
    x = tensor([1.0], requires_grad=True)
    seen = []
    with sorix.no_grad():
        assert not sorix.is_grad_enabled()
        assert not (x * 2.0).requires_grad
        with sorix.enable_grad():
            assert (x * 2.0).requires_grad
        thread = threading.Thread(target=lambda: seen.append((x * 2.0).requires_grad))
        thread.start()
        thread.join()
    assert seen == [True]
    assert sorix.is_grad_enabled()

    @sorix.no_grad()
    def function():
        return x * 2.0

    assert not function().requires_grad
    assert not function().requires_grad
    with sorix.set_grad_enabled(False):
        assert not (x * 2.0).requires_grad
    with pytest.raises(ZeroDivisionError), sorix.no_grad():
        1 / 0  # noqa: B018
    assert sorix.is_grad_enabled()


@pytest.mark.parametrize("dtype", [sorix.float16, sorix.bfloat16, sorix.float32, sorix.float64])
@pytest.mark.parametrize("save_mask", ["bits", "key"])
def test_a_residual_is_added_by_the_mask_of_the_key(dtype, save_mask):
    x = tensor(A, dtype=dtype, requires_grad=True)
    residual = tensor(B, dtype=dtype, requires_grad=True)
    y = x.dropout_add(residual, 0.4, seed=5, offset=6, save_mask=save_mask)
    assert y.dtype == dtype
    expected = sorix.dropout_add(x.data, residual.data, 0.4, seed=5, offset=6)
    np.testing.assert_array_equal(y.data, expected)
    y.backward(tensor(A, dtype=dtype))
    np.testing.assert_array_equal(x.grad.data, sorix.dropout(x.data, 0.4, seed=5, offset=6))
    np.testing.assert_array_equal(residual.grad.data, x.data)
    shard = sorix.Shard(A.shape, 1, 1, 3)
    part = x[:, 1:3].dropout_add(residual[:, 1:3], 0.4, seed=5, offset=6, shard=shard)
    np.testing.assert_array_equal(part.data, y.data[:, 1:3])


def test_requires_grad():
    x = tensor([1.0])
    assert not x.requires_grad
    assert x.is_leaf
    assert x.requires_grad_() is x
    assert x.requires_grad
    y = x * 2.0
    assert not y.is_leaf
    assert not y.detach().requires_grad
    with pytest.raises(RuntimeError, match="detach"):
        y.requires_grad = False
    x.requires_grad = False
    assert not (x * 2.0).requires_grad
    x.requires_grad = True
    (x * 2.0).backward()
    assert x.grad.tolist() == [2.0]


def test_errors_are_pythons_own_and_say_what_came():
    x = tensor(A)
    for kind, text, call in [
        (ValueError, "do not broadcast", lambda: x + tensor([1.0, 2.0])),
        (TypeError, "one dtype", lambda: x + sorix.ones((3, 4))),
        (IndexError, "out of range", lambda: x[3]),
        (IndexError, "axis 2", lambda: x.sum(axis=2)),
        (IndexError, "too many indices", lambda: x[0, 0, 0]),
        (IndexError, "one ellipsis", lambda: x[..., ...]),
        (TypeError, "expected an index", lambda: x[0.5]),
        (TypeError, "expected an index", lambda: x[A > 0]),
        (ValueError, "goes forward", lambda: x[::-1]),
        (ValueError, "5", lambda: x.reshape(5, 5)),
        (MemoryError, "zeros", lambda: sorix.zeros((2**40, 2**20))),
        (ValueError, "one element", lambda: x.item()),
        (ValueError, "ambiguous", lambda: bool(x)),
        (RuntimeError, "gradient", lambda: x.sum().backward()),
        (TypeError, "expected a dtype", lambda: x.to("int32")),
        (TypeError, "expected a dtype", lambda: x.to(3)),
        (TypeError, "expected an array of float16", lambda: tensor(["a"])),
        (TypeError, "unsupported operand", lambda: x + "a"),
        (TypeError, "unsupported operand", lambda: x**x),
        (TypeError, "without axes", lambda: len(x.sum())),
        (ValueError, "dropout_add", lambda: x.dropout_add(x.T, 0.5, seed=1)),
        (TypeError, "dropout_add", lambda: x.dropout_add(x.to("float32"), 0.5, seed=1)),
        (ValueError, "'bits' or 'key'", lambda: x.dropout_add(x, 0.5, seed=1, save_mask="all")),
        (OverflowError, "convert", lambda: x.dropout_add(x, 0.5, seed=-1)),
    ]:
        with pytest.raises(kind, match=text):
            call()


def test_tensors_pickle_and_copy():
    x = tensor(A, requires_grad=True)
    for y in (pickle.loads(pickle.dumps(x.T)), copy.deepcopy(x).T):
        np.testing.assert_array_equal(y.data, A.T)
    assert copy.deepcopy(x).requires_grad
    assert copy.deepcopy(x) is not x
    assert pickle.loads(pickle.dumps(x)).requires_grad
    with pytest.raises(RuntimeError, match="graph"):
        copy.deepcopy(x * 2.0)
    generator = sorix.Generator(3, offset=4)
    again = pickle.loads(pickle.dumps(generator))
    assert again.get_state() == copy.deepcopy(generator).get_state() == (3, 4)
    again.next_key()
    assert generator.offset == 4
    assert pickle.loads(pickle.dumps(sorix.float16)) is sorix.float16
    shard = sorix.Shard((4, 6), 1, 2, 5)
    assert pickle.loads(pickle.dumps(shard)) == shard


def test_generators():
    sorix.manual_seed(7)
    default = sorix.default_generator()
    assert default.get_state() == (7, 0)
    assert default.next_key() == (7, 0)
    assert default.offset == 1
    default.set_state((9, 3))
    assert repr(sorix.default_generator()) == "Generator(seed=9, offset=3)"
    assert sorix.Generator().seed != sorix.Generator().seed
    fork = sorix.Generator(1).fork("a")
    assert fork.get_state() == sorix.Generator(1, offset=8).fork("a").get_state()
    assert fork.seed != sorix.Generator(1).fork("b").seed
