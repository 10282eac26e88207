"""Attention that never holds its matrix: the same as PyTorch's operations one after the other by the same mask."""

import math

import pytest
import sorix
import sorix.torch as st
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

KEY = (2**64 - 1, 5)
HIDDEN = -math.inf


def by_matrix(query, key, value, mask=None, p=0.0, causal=False, scale=None, drop_key=KEY):
    """The whole matrix, in operations of PyTorch."""
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    scores = query @ key.transpose(-1, -2) * (scale or 1 / math.sqrt(query.shape[-1]))
    if mask is not None:
        scores = scores.masked_fill(~mask, HIDDEN) if mask.dtype == torch.bool else scores + mask
    if causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).tril() == 0, HIDDEN)
    probabilities = scores.softmax(-1)
    if p:
        keep = torch.from_numpy(sorix.mask(tuple(scores.shape), p, *drop_key))
        probabilities = torch.where(keep, probabilities * (1 / (1 - p) if p < 1 else 0.0), 0.0)
    return probabilities @ value


def inputs(dtype=torch.float64, heads=(4, 4), lengths=(70, 90), widths=(16, 8)):
    shapes = [
        (2, heads[0], lengths[0], widths[0]),
        (2, heads[1], lengths[1], widths[0]),
        (2, heads[1], lengths[1], widths[1]),
    ]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def assert_same(found, expected, leaves, tolerance):
    grad = torch.randn_like(expected)
    of_found = torch.autograd.grad(found, leaves, grad)
    of_expected = torch.autograd.grad(expected, leaves, grad)
    for a, b in zip((found, *of_found), (expected, *of_expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert (a - b).abs().max() <= tolerance * max(1.0, float(b.detach().abs().max()))


TOLERANCES = {
    torch.float64: 1e-13,
    torch.float32: 1e-5,
    torch.bfloat16: 2e-2,
    torch.float16: 2e-3,
}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("mask", [None, "bool", "added"])
def test_it_is_what_the_matrix_gives(dtype, p, mask):
    leaves = inputs(dtype, (4, 2))
    masks = {
        None: None,
        "bool": torch.rand(2, 1, 70, 90) > 0.4,
        "added": torch.randn(70, 90, dtype=dtype),
    }
    options = {"enable_gqa": True, "is_causal": True, "scale": 0.3}
    if mask == "bool":
        # Each query sees the first key at least, so that nothing here is blind.
        masks[mask][..., 0] = True
    y = st.scaled_dot_product_attention(*leaves, masks[mask], p, dropout_key=KEY, **options)
    wide = [x.double() for x in leaves]
    z = by_matrix(*wide, masks[mask], p, causal=True, scale=0.3).to(dtype)
    assert_same(y, z, leaves, TOLERANCES[dtype])


def test_strides_do_not_show():
    leaves = [torch.randn(2, 30, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    turned = [x.transpose(1, 2) for x in leaves]
    y = st.scaled_dot_product_attention(*turned, dropout_p=0.3, dropout_key=KEY)
    assert_same(y, by_matrix(*turned, p=0.3), leaves, 1e-13)


def test_gradients_are_those_of_finite_differences_twice():
    leaves = inputs(lengths=(3, 4), widths=(2, 3), heads=(1, 1))

    def call(*leaves):
        return st.scaled_dot_product_attention(*leaves, None, 0.4, True, dropout_key=KEY)

    assert torch.autograd.gradcheck(call, leaves)
    assert torch.autograd.gradgradcheck(call, leaves)


def test_a_query_that_sees_nothing_gets_zeros():
    leaves = inputs(lengths=(5, 6))
    mask = torch.ones(5, 6, dtype=torch.bool)
    mask[2] = False
    for p in (0.0, 0.3):
        y = st.scaled_dot_product_attention(*leaves, mask, p, dropout_key=KEY)
        assert (y[..., 2, :] == 0).all()
        gradients = torch.autograd.grad(y.sum(), leaves)
        assert (gradients[0][..., 2, :] == 0).all()
        assert all(x.isfinite().all() for x in gradients)


def test_what_is_dropped_by_one_worker_is_what_the_whole_drops():
    query, key, value = (x.detach() for x in inputs())
    whole = st.scaled_dot_product_attention(query, key, value, dropout_p=0.3, dropout_key=KEY)
    for start, stop in ((0, 33), (33, 70)):
        shard = sorix.Shard((2, 4, 70, 90), 2, start, stop)
        part = query[:, :, start:stop].requires_grad_()
        y = st.scaled_dot_product_attention(
            part, key, value, dropout_p=0.3, dropout_key=KEY, shard=shard
        )
        assert torch.allclose(y, whole[:, :, start:stop], atol=1e-13)
        # By the matrix, too.
        (grad,) = torch.autograd.grad(y.sum(), part, create_graph=True)
        (again,) = torch.autograd.grad(y.sum(), part)
        assert torch.allclose(grad, again, atol=1e-13)


def test_keys_come_from_the_generator():
    leaves = inputs()
    torch.manual_seed(3)
    a = st.scaled_dot_product_attention(*leaves, dropout_p=0.3)
    b = st.scaled_dot_product_attention(*leaves, dropout_p=0.3)
    torch.manual_seed(3)
    assert torch.equal(a, st.scaled_dot_product_attention(*leaves, dropout_p=0.3))
    assert not torch.equal(a, b)
    generator = torch.Generator().manual_seed(3)
    c = st.scaled_dot_product_attention(*leaves, dropout_p=0.3, generator=generator)
    assert torch.equal(a, c)
    state = torch.get_rng_state()
    st.scaled_dot_product_attention(*leaves)
    assert torch.equal(state, torch.get_rng_state())


def test_a_checkpoint_makes_the_same_again():
    leaves = inputs()

    def call(*leaves):
        return st.scaled_dot_product_attention(*leaves, dropout_p=0.3)

    torch.manual_seed(3)
    expected = torch.autograd.grad(call(*leaves).sum(), leaves)
    torch.manual_seed(3)
    y = checkpoint(call, *leaves, use_reentrant=False)
    for a, b in zip(torch.autograd.grad(y.sum(), leaves), expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_graph_gives_the_same_and_is_compiled_once(backend):
    torch._dynamo.reset()
    leaves = inputs(torch.float32)
    counter = CompileCounterWithBackend(backend)

    def call(query, key, value, dropout_key):
        return st.scaled_dot_product_attention(
            query, key, value, dropout_p=0.3, is_causal=True, dropout_key=dropout_key
        )

    compiled = torch.compile(call, backend=counter, fullgraph=True)
    for seed in range(3):
        dropout_key = torch.tensor([seed, 7])
        y, z = compiled(*leaves, dropout_key), call(*leaves, dropout_key)
        assert torch.equal(y, z)
        of_y = torch.autograd.grad(y.sum(), leaves)
        of_z = torch.autograd.grad(z.sum(), leaves)
        assert all(map(torch.equal, of_y, of_z))
    assert counter.frame_count == 1
    one = torch.compile(lambda x, key: call(x, x, x, key), backend=backend, fullgraph=True)
    assert torch.equal(one(leaves[0], dropout_key), call(*[leaves[0]] * 3, dropout_key))
    torch._dynamo.reset()


def test_a_transform_has_the_matrix_by_the_same_mask():
    query, key, value = (x.detach() for x in inputs())
    keys = torch.tensor([[1, 2], [3, 4]])

    def call(query, key, value, dropout_key):
        return st.scaled_dot_product_attention(
            query, key, value, dropout_p=0.3, dropout_key=dropout_key
        )

    rows = torch.func.vmap(call)(query, key, value, keys)
    for i, row in enumerate(rows):
        expected = call(query[i], key[i], value[i], keys[i])
        assert torch.allclose(row, expected, atol=1e-13)


@pytest.mark.parametrize("shape", [(70, 90), (2, 4, 70, 90), (4, 1, 1), (90,), (2, 1, 70, 1)])
def test_a_mask_may_require_a_gradient(shape):
    leaves = inputs(heads=(4, 2))
    mask = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def call(*given, p=0.3):
        return st.scaled_dot_product_attention(*given, p, dropout_key=KEY, enable_gqa=True)

    y = call(*leaves, mask)
    assert y.grad_fn.name() == "AttentionBackward"
    assert_same(y, by_matrix(*leaves, mask, 0.3), [*leaves, mask], 1e-12)
    # Of the mask alone.
    y = call(*(x.detach() for x in leaves), mask)
    assert_same(y, by_matrix(*(x.detach() for x in leaves), mask, 0.3), [mask], 1e-12)
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    y = compiled(*leaves, mask)
    assert_same(y, by_matrix(*leaves, mask, 0.3), [*leaves, mask], 1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_rounded_once_forward_and_backward(dtype):
    narrow = [*inputs(dtype), torch.randn(70, 90, dtype=dtype, requires_grad=True)]
    wide = [x.detach().float().requires_grad_() for x in narrow]
    grad = torch.randn(2, 4, 70, 8, dtype=dtype)
    found, expected = (
        st.scaled_dot_product_attention(*leaves, 0.3, dropout_key=KEY) for leaves in (narrow, wide)
    )
    assert torch.equal(found, expected.to(dtype))
    of_found = torch.autograd.grad(found, narrow, grad)
    of_expected = torch.autograd.grad(expected, wide, grad.float())
    for a, b in zip(of_found, of_expected, strict=True):
        assert torch.equal(a, b.to(dtype))


def test_what_does_not_fit_is_an_error():
    query, key, value = inputs()
    with pytest.raises(ValueError, match="between 0 and 1, but got 1.5"):
        st.scaled_dot_product_attention(query, key, value, dropout_p=1.5)
    with pytest.raises(RuntimeError):
        st.scaled_dot_product_attention(query, key[..., :3], value)
    # Added, its ones would hide nothing.
    for dtype in (torch.int64, torch.uint8, torch.float32):
        mask = torch.ones(70, 90, dtype=dtype)
        with pytest.raises(TypeError, match="attn_mask: expected bool, torch.float64"):
            st.scaled_dot_product_attention(query, key, value, mask)
    with pytest.raises(TypeError, match="value: expected a torch.Tensor, got numpy.ndarray"):
        st.scaled_dot_product_attention(query, key, value.detach().numpy())
    shard = sorix.Shard((2, 4, 70, 80), 2, 0, 70)
    with pytest.raises(ValueError, match="expected a part of shape"):
        st.scaled_dot_product_attention(
            query, key, value, dropout_p=0.3, dropout_key=KEY, shard=shard
        )


def test_a_patched_program_has_it_with_dropout_and_pytorchs_own_without():
    leaves = inputs(torch.float32, (4, 2))
    options = {"is_causal": True, "enable_gqa": True}
    plain = F.scaled_dot_product_attention(*leaves, **options)
    with st.patch():
        torch.manual_seed(3)
        y = F.scaled_dot_product_attention(*leaves, dropout_p=0.3, **options)
        assert torch.equal(plain, F.scaled_dot_product_attention(*leaves, **options))
        with pytest.raises(RuntimeError):
            mask = torch.ones(70, 90, dtype=torch.bool)
            F.scaled_dot_product_attention(*leaves, mask, 0.3, **options)
    torch.manual_seed(3)
    z = st.scaled_dot_product_attention(*leaves, dropout_p=0.3, **options)
    assert torch.equal(y, z)
    assert y.grad_fn.name() == "AttentionBackward"


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_patched_layer_trains_compiled_and_not(backend):
    torch._dynamo.reset()
    model = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True)
    x = torch.randn(3, 10, 16)

    def step(function):
        torch.manual_seed(5)
        model.zero_grad()
        y = function(x)
        y.square().sum().backward()
        return y, [p.grad.clone() for p in model.parameters()]

    with st.patch():
        y, of_y = step(model)
        z, of_z = step(torch.compile(model, backend=backend, fullgraph=True))
    if backend == "aot_eager":
        assert torch.allclose(y, z, atol=1e-5)
        for a, b in zip(of_y, of_z, strict=True):
            assert torch.allclose(a, b, atol=1e-4)
    # Inductor orders the draws otherwise.
    assert z.isfinite().all()
    torch._dynamo.reset()
