"""Softmax and attention with dropout, of tensors."""

import numpy as np
import pytest
import sorix
from sorix import tensor

KEY = {"seed": 3, "offset": 2**64 - 1}


def arrays(*shapes):
    generator = np.random.default_rng(1)
    return [generator.normal(size=shape) for shape in shapes]


def softmax(x):
    e = np.exp(x - np.where(np.isinf(m := x.max(-1, keepdims=True)), 0, m))
    return e / np.where((total := e.sum(-1, keepdims=True)) == 0, 1, total)


def kept(shape, p):
    return sorix.mask(shape, p, **KEY) * (1 / (1 - p) if p < 1 else 0.0)


@pytest.mark.parametrize("save_mask", ["bits", "key"])
@pytest.mark.parametrize("p", [0.0, 0.1, 1.0])
def test_dropout_of_a_softmax(p, save_mask):
    x, bias = arrays((5, 6, 7), (6, 7))
    bias[2] = -np.inf
    bias[:, 3] = -np.inf
    leaf = tensor(x, requires_grad=True)
    y = leaf.softmax_dropout(p, attn_mask=tensor(bias), scale=0.7, save_mask=save_mask, **KEY)
    probabilities = softmax(0.7 * x + bias)
    mask = kept(x.shape, p)
    np.testing.assert_allclose(y.data, probabilities * mask, rtol=1e-12, atol=1e-15)
    assert not y.data[:, 2].any()
    (grad,) = arrays(x.shape)
    y.backward(tensor(grad))
    grad = grad * mask
    expected = probabilities * (grad - (grad * probabilities).sum(-1, keepdims=True)) * 0.7
    np.testing.assert_allclose(leaf.grad.data, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_is_what_the_matrix_gives(p, is_causal):
    query, key, value, bias = arrays((2, 4, 70, 8), (2, 4, 600, 8), (2, 4, 600, 5), (70, 600))
    leaves = [tensor(x, requires_grad=True) for x in (query, key, value)]
    options = {"scale": 0.3, "is_causal": is_causal, "attn_mask": tensor(bias)}
    y = leaves[0].scaled_dot_product_attention(*leaves[1:], dropout_p=p, **options, **KEY)
    scores = query @ key.swapaxes(-1, -2) * 0.3 + bias
    if is_causal:
        scores = np.where(np.tri(70, 600, dtype=bool), scores, -np.inf)
    probabilities = softmax(scores)
    mask = kept(scores.shape, p)
    np.testing.assert_allclose(y.data, (probabilities * mask) @ value, rtol=1e-9, atol=1e-12)
    (grad,) = arrays(y.shape)
    y.backward(tensor(grad))
    of_value = (probabilities * mask).swapaxes(-1, -2) @ grad
    of_dropped = grad @ value.swapaxes(-1, -2) * mask
    shares = (of_dropped * probabilities).sum(-1, keepdims=True)
    of_scores = probabilities * (of_dropped - shares) * 0.3
    expected = [of_scores @ key, of_scores.swapaxes(-1, -2) @ query, of_value]
    for leaf, gradient in zip(leaves, expected, strict=True):
        np.testing.assert_allclose(leaf.grad.data, gradient, rtol=1e-9, atol=1e-12)


def test_heads_share_a_key():
    query, key, value = arrays((4, 6, 8), (2, 6, 8), (2, 6, 8))
    y = tensor(query).scaled_dot_product_attention(
        tensor(key), tensor(value), enable_gqa=True, dropout_p=0.3, **KEY
    )
    apart = tensor(query).scaled_dot_product_attention(
        tensor(key.repeat(2, axis=0)), tensor(value.repeat(2, axis=0)), dropout_p=0.3, **KEY
    )
    np.testing.assert_array_equal(y.data, apart.data)


def test_what_does_not_fit_is_an_error():
    x = sorix.ones((2, 3))
    for text, call in [
        ("seed: expected a number, as dropout_p is 0.1", lambda: attend(x, x, x, None, 0.1)),
        ("probability", lambda: attend(x, x, x, None, -0.1, seed=1)),
        ("scaled_dot_product_attention", lambda: attend(x, sorix.ones((2, 4)), x)),
        ("softmax_dropout", lambda: x.softmax_dropout(0.5, attn_mask=sorix.ones(4), seed=1)),
        ("save_mask", lambda: x.softmax_dropout(0.5, save_mask="no", seed=1)),
    ]:
        with pytest.raises(ValueError, match=text):
            call()
    with pytest.raises(IndexError, match="axis -2"):
        attend(sorix.ones(3), x, x, seed=1)


def attend(query, *arguments, **options):
    return query.scaled_dot_product_attention(*arguments, **options)
