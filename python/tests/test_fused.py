"""What is done in the pass of a dropout: of numpy's arrays, of tensors, and as modules."""

import copy
import functools
import math
import pickle

import numpy as np
import pytest
import sorix
from sorix import nn, tensor

KEY = {"seed": 3, "offset": 2**64 - 1}
DTYPES = [np.float16, np.float32, np.float64]
CLOSE = {np.float16: 1e-3, np.float32: 1e-6, np.float64: 1e-13}
erf = np.vectorize(math.erf, otypes=[float])
ROOT = math.sqrt(2 / math.pi)


def sigmoid(x):
    return np.where(x >= 0, 1 / (1 + np.exp(-abs(x))), np.exp(-abs(x)) / (1 + np.exp(-abs(x))))


# Each with its derivative.
ACTIVATIONS = {
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0) * 1.0),
    "gelu": (
        lambda x: 0.5 * x * (1 + erf(x / math.sqrt(2))),
        lambda x: (
            0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        ),
    ),
    "gelu_tanh": (
        lambda x: 0.5 * x * (1 + np.tanh(ROOT * (x + 0.044715 * x**3))),
        lambda x: (
            0.5 * (1 + np.tanh(ROOT * (x + 0.044715 * x**3)))
            + 0.5
            * x
            * (1 - np.tanh(ROOT * (x + 0.044715 * x**3)) ** 2)
            * ROOT
            * (1 + 3 * 0.044715 * x**2)
        ),
    ),
    "silu": (
        lambda x: x * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * (1 - sigmoid(x))),
    ),
}


def kept(shape, p):
    return sorix.mask(shape, p, **KEY) * (1 / (1 - p) if p < 1 else 0.0)


def arrays(dtype):
    x = np.linspace(-6, 7, 9000).astype(dtype).reshape(90, 100)
    return x, x[::-1].copy() * dtype(0.5), np.linspace(1, -1, 100).astype(dtype)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(activation, dtype, p):
    function, derivative = ACTIVATIONS[activation]
    x, dy, bias = arrays(dtype)
    y, mask = sorix.act_dropout(x, activation, p, bias=bias, **KEY, return_mask=True)
    assert y.dtype == dtype
    sums = x.astype(float) + bias
    close = {"rtol": CLOSE[dtype], "atol": 1e-5 if dtype == np.float16 else 4 * CLOSE[dtype]}
    np.testing.assert_allclose(y, function(sums) * kept(x.shape, p), **close)
    keep = sorix.mask(x.shape, p, **KEY)
    if activation == "relu":
        keep &= x + bias > 0
    bits = np.unpackbits(mask, count=x.size, bitorder="little").astype(bool).reshape(x.shape)
    if dtype != np.float16:
        np.testing.assert_array_equal(bits, keep)

    # By the mask, as bits and as bools, and by the key.
    dx = sorix.act_dropout_backward(dy, activation, p, x=x, bias=bias, **KEY)
    np.testing.assert_allclose(dx, derivative(sums) * dy * kept(x.shape, p), **close)
    for given in (mask, bits):
        again = sorix.act_dropout_backward(dy, activation, p, x=x, bias=bias, mask=given)
        np.testing.assert_array_equal(again, dx)
    if activation == "relu":
        for again in (
            sorix.act_dropout_backward(dy, "relu", p, mask=mask),
            sorix.dropout_backward(dy, mask, p),
        ):
            np.testing.assert_array_equal(again, dx)

    # Over the input itself, and of any strides.
    expected = sorix.act_dropout(x[::-1, ::2].copy(), activation, p, **KEY)
    np.testing.assert_array_equal(sorix.act_dropout(x[::-1, ::2], activation, p, **KEY), expected)
    own = x.copy()
    assert sorix.act_dropout(own, activation, p, bias=bias, **KEY, out=own) is own
    np.testing.assert_array_equal(own, y)
    shard = sorix.Shard(x.shape, axis=1, start=20, stop=70)
    part = sorix.act_dropout(x[:, 20:70], activation, p, bias=bias[20:70], **KEY, shard=shard)
    np.testing.assert_array_equal(part, y[:, 20:70])


@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gate_and_a_bias(dtype, p):
    x, other, bias = arrays(dtype)
    silu, derivative = ACTIVATIONS["silu"]
    close = {"rtol": CLOSE[dtype], "atol": 1e-4 if dtype == np.float16 else 20 * CLOSE[dtype]}
    y, mask = sorix.swiglu_dropout(x, other, p, **KEY, return_mask=True)
    gate, up, scale = x.astype(float), other.astype(float), kept(x.shape, p)
    np.testing.assert_allclose(y, silu(gate) * up * scale, **close)
    np.testing.assert_array_equal(mask, sorix.mask(x.shape, p, **KEY, packed=True))
    gradients = sorix.swiglu_dropout_backward(x, x, other, p, **KEY)
    np.testing.assert_allclose(gradients[0], gate * up * derivative(gate) * scale, **close)
    np.testing.assert_allclose(gradients[1], gate * silu(gate) * scale, **close)
    for gradient, again in zip(
        gradients, sorix.swiglu_dropout_backward(x, x, other, p, mask=mask), strict=True
    ):
        np.testing.assert_array_equal(gradient, again)

    y, mask = sorix.bias_dropout_add(x, bias, other, p, **KEY, return_mask=True)
    expected = other + (x.astype(float) + bias) * scale
    np.testing.assert_allclose(y, expected, rtol=CLOSE[dtype], atol=4 * CLOSE[dtype])
    np.testing.assert_array_equal(mask, sorix.mask(x.shape, p, **KEY, packed=True))
    residual = other.copy()
    assert sorix.bias_dropout_add(x, bias, residual, p, **KEY, out=residual) is residual
    np.testing.assert_array_equal(residual, y)


def test_nan_in_what_is_dropped_gets_nowhere():
    keep = sorix.mask((90, 100), 0.5, **KEY)
    x, other, bias = arrays(np.float32)
    bad = np.where(keep, x, np.nan).astype(np.float32)
    for activation in ACTIVATIONS:
        y = sorix.act_dropout(bad, activation, 0.5, **KEY)
        np.testing.assert_array_equal(y, sorix.act_dropout(x, activation, 0.5, **KEY))
        dx = sorix.act_dropout_backward(bad, activation, 0.5, x=bad, **KEY)
        assert (dx[~keep] == 0).all()
    y = sorix.swiglu_dropout(bad, bad, 0.5, **KEY)
    np.testing.assert_array_equal(y, sorix.swiglu_dropout(x, x, 0.5, **KEY))
    for gradient in sorix.swiglu_dropout_backward(bad, bad, bad, 0.5, **KEY):
        assert (gradient[~keep] == 0).all()
    y = sorix.bias_dropout_add(bad, bias, other, 0.5, **KEY)
    np.testing.assert_array_equal(y[~keep], other[~keep])


def test_what_does_not_fit_is_refused_and_nothing_is_written():
    x, out = np.ones((2, 4), np.float32), np.full((2, 4), 7, np.float32)
    wide, key = np.ones((2, 4)), {"seed": 1}
    mask = np.zeros(1, np.uint8)
    for kind, text, call in [
        (ValueError, 'one of ["relu", "gelu"', lambda: sorix.act_dropout(x, "elu", 0.5, **key)),
        (
            ValueError,
            "bias: expected shape [4], got [2]",
            lambda: sorix.act_dropout(x, "relu", 0.5, bias=x[0, :2], out=out, **key),
        ),
        (
            TypeError,
            "bias: expected dtype sorix.float32, got sorix.float64",
            lambda: sorix.act_dropout(x, "relu", 0.5, bias=wide[0], out=out, **key),
        ),
        (
            ValueError,
            "up: expected shape [2, 4], got [1, 4]",
            lambda: sorix.swiglu_dropout(x, x[:1], 0.5, out=out, **key),
        ),
        (TypeError, "up: expected dtype", lambda: sorix.swiglu_dropout(x, wide, 0.5, **key)),
        (
            ValueError,
            "residual: expected shape",
            lambda: sorix.bias_dropout_add(x, x[0], x[:1], 0.5, out=out, **key),
        ),
        (
            ValueError,
            "bias: expected shape [4], got [2, 4]",
            lambda: sorix.bias_dropout_add(x, x, x, 0.5, out=out, **key),
        ),
        (
            ValueError,
            "the mask of forward, or its seed",
            lambda: sorix.act_dropout_backward(x, "silu", 0.5, x=x, out=out),
        ),
        (
            ValueError,
            "the mask of forward, or its seed",
            lambda: sorix.swiglu_dropout_backward(x, x, x, 0.5, mask=mask, seed=1),
        ),
        (
            ValueError,
            "x: expected the input of forward",
            lambda: sorix.act_dropout_backward(x, "silu", 0.5, mask=mask, out=out),
        ),
        (
            ValueError,
            "x: expected the input of forward",
            lambda: sorix.act_dropout_backward(x, "relu", 0.5, seed=1, out=out),
        ),
        (
            ValueError,
            "x: expected shape",
            lambda: sorix.act_dropout_backward(x, "relu", 0.5, x=x[:1], seed=1, out=out),
        ),
        (ValueError, "probability", lambda: sorix.act_dropout(x, "relu", 1.5, out=out, **key)),
        (
            ValueError,
            "read while it is written",
            lambda: sorix.swiglu_dropout(out, x, 0.5, out=x, **key),
        ),
    ]:
        with pytest.raises(kind) as error:
            call()
        assert text in str(error.value)
    assert (out == 7).all()
    assert (x == 1).all()

    a = tensor(x)
    for kind, text, call in [
        (ValueError, 'one of ["relu"', lambda: a.act_dropout("elu", 0.5, **key)),
        (ValueError, "act_dropout", lambda: a.act_dropout("relu", 0.5, bias=a, **key)),
        (TypeError, "swiglu_dropout", lambda: a.swiglu_dropout(tensor(wide), 0.5, **key)),
        (ValueError, "bias_dropout_add", lambda: a.bias_dropout_add(a, a, 0.5, **key)),
        (ValueError, "norm: expected", lambda: a.dropout_add_norm(a, 0.5, norm="l2", **key)),
        (ValueError, "dropout_add_norm", lambda: a.dropout_add_norm(a, 0.5, weight=a, **key)),
        (ValueError, "save_mask", lambda: a.act_dropout("relu", 0.5, save_mask="no", **key)),
        (ValueError, "probability", lambda: a.swiglu_dropout(a, -1.0, **key)),
        (ValueError, "even length", lambda: nn.SwiGLU()(sorix.ones((2, 3)))),
        (ValueError, "approximate", lambda: nn.GELUDropout(0.5, "sigmoid")),
        (TypeError, "dropout: expected", lambda: nn.Residual(nn.ReLU(), nn.ReLU())),
        (TypeError, "expected a Dropout", lambda: nn.DropoutAddNorm(4, nn.DropPath())),
        (ValueError, "norm: expected", lambda: nn.DropoutAddNorm(4, nn.Dropout(), norm="l2")),
        (ValueError, "ends in axes [3]", lambda: nn.DropoutAddNorm(3, nn.Dropout())(a, a)),
    ]:
        with pytest.raises(kind) as error:
            call()
        assert text in str(error.value)


@pytest.mark.parametrize("save_mask", ["bits", "key"])
def test_tensors_have_the_gradients_of_the_operations_apart(save_mask):
    x, other = (array[:6, :8] for array in arrays(np.float64)[:2])
    bias = np.linspace(-1, 1, 8)
    options = {**KEY, "save_mask": save_mask}

    def drop(y):
        return y * tensor(kept((6, 8), 0.4))

    cases = [
        (
            lambda x, _, bias: x.act_dropout("silu", 0.4, bias=bias, **options),
            lambda x, _, bias: drop((x + bias) * (x + bias).sigmoid()),
        ),
        (
            lambda x, other, _: x.swiglu_dropout(other, 0.4, **options),
            lambda x, other, _: drop(x.silu() * other),
        ),
        (
            lambda x, other, bias: x.bias_dropout_add(bias, other, 0.4, **options),
            lambda x, other, bias: other + drop(x + bias),
        ),
        (
            lambda x, other, bias: x.dropout_add_norm(
                other, 0.4, bias=bias, weight=bias, shift=bias, eps=1e-3, **options
            )[0],
            lambda x, other, bias: nn.layer_norm(other + drop(x + bias), [8], bias, bias, 1e-3),
        ),
        (
            lambda x, other, bias: x.dropout_add_norm(
                other, 0.4, norm="rms", weight=bias, eps=1e-3, **options
            )[0],
            lambda x, other, bias: (
                (other + drop(x))
                / (((other + drop(x)) ** 2.0).mean(axis=1, keepdims=True) + 1e-3).sqrt()
                * bias
            ),
        ),
    ]
    for fused, apart in cases:
        results = []
        for function in (fused, apart):
            leaves = [tensor(array, requires_grad=True) for array in (x, other, bias)]
            y = function(*leaves)
            y.backward(tensor(other))
            results.append([y.data, *(leaf.grad for leaf in leaves)])
        for got, expected in zip(*results, strict=True):
            assert (got is None) == (expected is None)
            if got is not None:
                got, expected = np.asarray(got), np.asarray(expected)
                np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


MODULES = {
    "ReLUDropout": lambda **k: (nn.ReLUDropout(0.4, **k), nn.ReLU()),
    "GELUDropout": lambda **k: (nn.GELUDropout(0.4, **k), nn.GELU()),
    "GELUDropout, tanh": lambda **k: (nn.GELUDropout(0.4, "tanh", **k), nn.GELU("tanh")),
    "SiLUDropout": lambda **k: (nn.SiLUDropout(0.4, **k), nn.SiLU()),
    "SwiGLUDropout": lambda **k: (nn.SwiGLUDropout(0.4, **k), nn.SwiGLU()),
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_an_activation_and_then_a_dropout(name):
    for save_mask in ("bits", "key"):
        options = {"generator": sorix.Generator(9), "save_mask": save_mask}
        layer, activation = MODULES[name](**options)
        dropout = nn.Dropout(0.4, generator=sorix.Generator(9))
        x = tensor(arrays(np.float64)[0], requires_grad=True)
        y = layer(x)
        expected = dropout(activation(x.detach()))
        np.testing.assert_allclose(y.data, expected.data, rtol=1e-12)
        assert (layer(x).data != y.data).any()
        y.sum().backward()
        assert np.isfinite(x.grad.data).all()
        np.testing.assert_array_equal(layer(x.detach(), key=(9, 0)).data, y.data)
        layer.eval()
        np.testing.assert_array_equal(layer(x).data, activation(x).data)
        call = functools.partial(layer, x)
        draws = [nn.monte_carlo(call, seed=1, sample=i).data for i in (0, 0, 1)]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0] != draws[2]).any()
        other = pickle.loads(pickle.dumps(copy.deepcopy(layer)))
        np.testing.assert_array_equal(other(x).data, activation(x).data)
    assert repr(layer).startswith(name.split(",")[0] + "(p=0.4")


def test_residuals():
    x = tensor(arrays(np.float64)[0])
    bias = tensor(arrays(np.float64)[2])
    for make in (nn.Dropout, nn.DropPath, nn.AlphaDropout, nn.LockedDropout):
        layer, apart = (make(0.4, generator=sorix.Generator(9)) for _ in range(2))
        block = nn.Residual(nn.Tanh(), layer)
        expected = x + apart(x.tanh())
        np.testing.assert_allclose(block(x).data, expected.data, rtol=1e-12, atol=1e-12)
        y = layer.forward_add(x, x, bias)
        np.testing.assert_allclose(y.data, (x + apart(x + bias)).data, rtol=1e-12, atol=1e-12)
        block.eval()
        np.testing.assert_array_equal(block(x).data, (x + x.tanh()).data)
    assert [name for name, _ in block.named_children()] == ["block", "dropout"]


@pytest.mark.parametrize("norm", ["layer", "rms"])
def test_the_norm_is_a_module(norm):
    dropout = nn.Dropout(0.4, generator=sorix.Generator(9), save_mask="key")
    layer = nn.DropoutAddNorm((100,), dropout, norm=norm, dtype=sorix.float64)
    names = ["weight", "bias"] if norm == "layer" else ["weight"]
    assert list(layer.state_dict()) == names
    row = arrays(np.float64)[2]
    layer.load_state_dict(dict.fromkeys(names, row))
    x, residual = (tensor(array, requires_grad=True) for array in arrays(np.float64)[:2])
    z, total = layer(x, residual)
    apart = nn.Dropout(0.4, generator=sorix.Generator(9))
    expected = residual + apart(x)
    np.testing.assert_array_equal(total.data, expected.data)
    sums = expected.data
    if norm == "layer":
        unit = (sums - sums.mean(1, keepdims=True)) / np.sqrt(sums.var(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(z.data, unit * row + row, rtol=1e-10, atol=1e-10)
    else:
        unit = sums / np.sqrt((sums**2).mean(1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(z.data, unit * row, rtol=1e-10, atol=1e-10)
    (z + total).sum().backward()
    assert layer.weight.grad is not None
    assert residual.grad is not None
    layer.eval()
    np.testing.assert_array_equal(layer(x, residual)[1].data, (residual + x).data)
    np.testing.assert_array_equal(layer(x, residual)[0].data, layer(x, residual)[0].data)
