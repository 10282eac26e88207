"""What is done in the pass of a dropout: the same as PyTorch's operations one after the other by the same mask."""

import copy
import pickle

import numpy as np
import pytest
import sorix
import sorix.torch as st
import torch
import torch.nn.functional as F
from sorix.torch import _ops
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

KEY = (2**64 - 1, 5)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
ACTIVATIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
}


def scaled(x, p, key=KEY):
    """A dropout in operations of PyTorch."""
    keep = torch.from_numpy(sorix.mask(tuple(x.shape), p, *key))
    return torch.where(keep, x * (1 / (1 - p) if p < 1 else 0.0), 0.0)


def act(activation, fused):
    def call(x, bias, p, **options):
        if fused:
            return st.act_dropout(x, activation, p, bias=bias, **options)
        return scaled(ACTIVATIONS[activation](x + bias), p)

    return call


def swiglu(gate, up, p, **options):
    return st.swiglu_dropout(gate, up, p, **options)


def bias_add(x, bias, residual, p, **options):
    return st.bias_dropout_add(x, bias, residual, p, **options)


# Each with the same in PyTorch's operations, and the shapes of the inputs.
CASES = {
    **{name: (act(name, True), act(name, False), [(30, 70), (70,)]) for name in ACTIVATIONS},
    "swiglu": (
        swiglu,
        lambda gate, up, p: scaled(F.silu(gate) * up, p),
        [(30, 70), (30, 70)],
    ),
    "bias_add": (
        bias_add,
        lambda x, bias, residual, p: residual + scaled(x + bias, p),
        [(30, 70), (70,), (30, 70)],
    ),
}
TOLERANCES = {
    torch.float64: 1e-13,
    torch.float32: 2e-6,
    torch.bfloat16: 2**-7,
    torch.float16: 2**-10,
}


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("save_mask", ["key", "bits"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_operations_apart(case, dtype, save_mask, p):
    fused, apart, shapes = CASES[case]
    inputs = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
    y = fused(*inputs, p, key=KEY, save_mask=save_mask)
    assert y.dtype == dtype
    dy = torch.randn(30, 70).to(dtype)
    gradients = torch.autograd.grad(y, inputs, dy)
    # 16 bits are rounded once, but at p = 0, where PyTorch does it; so the others are computed in 32.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    copies = [x.detach().to(dtype if p == 0 else wide).requires_grad_() for x in inputs]
    z = apart(*copies, p)
    expected = torch.autograd.grad(z, copies, dy.to(z.dtype))
    close = {"rtol": TOLERANCES[dtype], "atol": TOLERANCES[wide]}
    torch.testing.assert_close(y.detach(), z.detach().to(dtype), **close)
    for x, got, gradient in zip(inputs, gradients, expected, strict=True):
        assert got.dtype == dtype
        if x.dim() == 1:
            # A sum of what was rounded.
            close["atol"] = 30 * 5 * TOLERANCES[dtype]
        torch.testing.assert_close(got, gradient.to(dtype), **close)
    if p > 0:
        with torch.no_grad():
            assert torch.equal(fused(*inputs, p, key=KEY), y)
        keep = torch.from_numpy(sorix.mask((30, 70), p, *KEY))
        assert (gradients[0][~keep] == 0).all()


@pytest.mark.parametrize("dtype", DTYPES[::2] + DTYPES[3:])
def test_the_doors_of_numpy_and_of_tensors_give_the_same_bits(dtype):
    x, other, dy = (torch.randn(30, 70).to(dtype) for _ in range(3))
    bias = torch.randn(70).to(dtype)
    arrays = [tensor.numpy() for tensor in (x, other, bias)]
    own = [sorix.tensor(array, requires_grad=True) for array in arrays]
    key = {"seed": KEY[0], "offset": KEY[1]}
    for activation in ACTIVATIONS:
        leaf = x.clone().requires_grad_()
        y = st.act_dropout(leaf, activation, 0.4, bias=bias, key=KEY)
        y.backward(dy)
        z = sorix.act_dropout(arrays[0], activation, 0.4, bias=arrays[2], **key)
        np.testing.assert_array_equal(y.detach().numpy(), z)
        w = own[0].act_dropout(activation, 0.4, bias=own[2], **key)
        np.testing.assert_array_equal(w.data, z)
        own[0].zero_grad()
        w.backward(sorix.tensor(dy.numpy()))
        np.testing.assert_array_equal(own[0].grad.data, leaf.grad.numpy())
    gate, up = x.clone().requires_grad_(), other.clone().requires_grad_()
    y = st.swiglu_dropout(gate, up, 0.4, key=KEY)
    y.backward(dy)
    np.testing.assert_array_equal(y.detach().numpy(), sorix.swiglu_dropout(*arrays[:2], 0.4, **key))
    gradients = sorix.swiglu_dropout_backward(dy.numpy(), *arrays[:2], 0.4, **key)
    for leaf, gradient in zip((gate, up), gradients, strict=True):
        np.testing.assert_array_equal(leaf.grad.numpy(), gradient)
    y = st.bias_dropout_add(x, bias, other, 0.4, key=KEY)
    z = sorix.bias_dropout_add(arrays[0], arrays[2], arrays[1], 0.4, **key)
    np.testing.assert_array_equal(y.numpy(), z)


@pytest.mark.parametrize("save_mask", ["key", "bits"])
@pytest.mark.parametrize("case", CASES)
def test_all_kinds_of_gradients(case, save_mask):
    fused, _, shapes = CASES[case]
    shapes = [(3, *shape[1:]) if len(shape) > 1 else shape for shape in shapes]
    shapes = [(*shape[:-1], 4) for shape in shapes]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def call(*inputs):
        return fused(*inputs, 0.3, key=(1, 2), save_mask=save_mask)

    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs)
    # One of them is enough to be recorded, and the others get none.
    y = call(*inputs)
    expected = torch.autograd.grad(y.sum(), inputs)
    for position, gradient in enumerate(expected):
        alone = [x.detach() for x in inputs]
        alone[position].requires_grad_()
        call(*alone).sum().backward()
        torch.testing.assert_close(alone[position].grad, gradient)
        assert all((x.grad is None) == (i != position) for i, x in enumerate(alone))


PATHS = [
    {"mode": mode, "scale_by_keep": scale} for mode in ("row", "batch") for scale in (True, False)
]


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("save_mask", ["key", "bits"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", PATHS)
def test_a_path_that_is_added_has_the_bits_of_both_apart(options, dtype, save_mask, p):
    x, residual, dy = torch.randn(3, 30, 7, 5, dtype=torch.float64).to(dtype)
    leaves = x.requires_grad_(), residual.requires_grad_()
    options = {**options, "key": KEY}
    y = st.drop_path_add(x, residual, p, save_mask=save_mask, **options)
    # Inverted dropout and its sum are rounded to 16 bits once, so that the others are computed in 32; but for
    # p = 0, where PyTorch adds.
    wide = torch.promote_types(dtype, torch.float32) if options["scale_by_keep"] and p else dtype
    dropped = st.drop_path(x.detach().to(wide), p, **options)
    expected = (residual.detach().to(wide) + dropped).to(dtype)
    assert y.dtype == dtype
    assert torch.equal(y.detach(), expected)
    dx, dr = torch.autograd.grad(y, leaves, dy)
    assert torch.equal(dx, st.drop_path(dy, p, **options))
    assert torch.equal(dr, dy)
    if p:
        keep = torch.from_numpy(
            sorix.mask((30, 1, 1) if options["mode"] == "row" else (1, 1, 1), p, *KEY)
        ).expand(x.shape)
        scale = 1 / (1 - p) if p < 1 and options["scale_by_keep"] else 1.0
        assert torch.equal((dx != 0), keep & (dy != 0))
        torch.testing.assert_close(dx, torch.where(keep, dy * scale, 0.0))
        assert torch.equal(y[~keep], residual[~keep])
    # One of the two is enough to be recorded, and what nobody records has the same bits.
    for inputs in ((x, residual.detach()), (x.detach(), residual)):
        z = st.drop_path_add(*inputs, p, save_mask=save_mask, **options)
        assert torch.equal(z, y)
        z.backward(dy)
    assert torch.equal(x.grad, dx)
    assert torch.equal(residual.grad, dr)
    with torch.no_grad():
        assert torch.equal(st.drop_path_add(x, residual, p, **options), y)
    assert torch.equal(st.drop_path_add(x, residual, p, training=False, **options), residual + x)


@pytest.mark.parametrize("save_mask", ["key", "bits"])
@pytest.mark.parametrize("options", PATHS)
def test_all_kinds_of_gradients_of_a_path_that_is_added(options, save_mask):
    x, residual = torch.randn(2, 6, 4, dtype=torch.float64).requires_grad_().unbind()
    options = {**options, "key": (1, 2)}

    def call(x, residual):
        return st.drop_path_add(x, residual, 0.3, save_mask=save_mask, **options)

    assert torch.autograd.gradcheck(
        call, (x, residual), check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(call, (x, residual))
    # A gradient that is derived again: of a square, so that there is something left.
    (dx,) = torch.autograd.grad((call(x, residual) ** 2).sum(), x, create_graph=True)
    (again,) = torch.autograd.grad(dx.sum(), x)
    kept = st.drop_path(torch.ones(6, 4, dtype=torch.float64), 0.3, **options)
    assert torch.allclose(again, 2 * kept**2)
    with torch.autograd.forward_ad.dual_level():
        for position in (0, 1):
            inputs = [x.detach(), residual.detach()]
            inputs[position] = torch.autograd.forward_ad.make_dual(inputs[position], residual)
            tangent = torch.autograd.forward_ad.unpack_dual(call(*inputs)).tangent
            expected = residual if position else st.drop_path(residual, 0.3, **options)
            assert torch.equal(tangent, expected)


@pytest.mark.parametrize("p", [0.5, 1.0])
def test_nan_of_a_path_that_is_dropped_gets_nowhere(p):
    keep = torch.from_numpy(sorix.mask((8, 1), p, *KEY)).expand(8, 3)
    x, residual = torch.randn(2, 8, 3)
    expected = st.drop_path_add(x, residual, p, key=KEY)
    for worst in (float("nan"), float("inf")):
        leaf = torch.where(keep, x, worst).requires_grad_()
        for scale_by_keep in (True, False):
            options = {"scale_by_keep": scale_by_keep, "key": KEY}
            y = st.drop_path_add(leaf, residual, p, **options)
            assert torch.equal(y[~keep], residual[~keep])
            assert y.isfinite().all()
            if scale_by_keep:
                assert torch.equal(y, expected)
            (dx,) = torch.autograd.grad(y, leaf, torch.where(keep, 1.0, worst))
            assert torch.equal(dx, st.drop_path(torch.ones_like(x), p, **options))


def test_a_dropped_path_layer_adds_as_the_layer_and_a_sum():
    x, residual = torch.randn(2, 40, 5)
    for options in PATHS:
        layer = st.DropPath(0.25, **options)
        for _ in range(4):
            seed = torch.get_rng_state()
            y = layer.forward_add(x, residual)
            torch.set_rng_state(seed)
            assert torch.equal(y, residual + layer(x))
    layer = st.DropPath(0.25)
    torch.manual_seed(5)
    y = layer.forward_add(x, residual)
    assert not torch.equal(layer.forward_add(x, residual), y)
    own = st.DropPath(0.25, True, generator=torch.Generator().manual_seed(5), save_mask="bits")
    before, state = x.clone(), torch.get_rng_state()
    assert torch.equal(own.forward_add(x, residual), y)
    # In place or not, the inputs are left as they are.
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(layer.eval().forward_add(x, residual), residual + x)
    layer.train().p = 0.0
    assert torch.equal(layer.forward_add(x, residual), residual + x)
    layer.p = 1.0
    assert torch.equal(layer.forward_add(x, residual), residual)
    # A sample without a shape is one that is dropped or not.
    state = torch.get_rng_state()
    one = st.DropPath(0.5).forward_add(torch.tensor(3.0), torch.tensor(1.0))
    torch.set_rng_state(state)
    assert torch.equal(one, 1.0 + st.DropPath(0.5)(torch.tensor(3.0)))
    for use_reentrant in (False, True):
        leaf = torch.ones(100, 3, requires_grad=True)
        z = checkpoint(
            lambda x: st.DropPath(0.5).forward_add(x * 2.0, torch.ones_like(x)),
            leaf,
            use_reentrant=use_reentrant,
        )
        z.sum().backward()
        assert set(z.flatten().tolist()) == {1.0, 5.0}
        assert torch.equal(leaf.grad, torch.where(z == 1, 0.0, 4.0))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("p", [0.5, 1.0])
def test_nan_in_what_is_dropped_gets_nowhere(case, p):
    fused, _, shapes = CASES[case]
    keep = torch.from_numpy(sorix.mask((30, 70), p, *KEY))
    inputs = [torch.randn(shape) for shape in shapes]
    expected = fused(*inputs, p, key=KEY)
    for worst in (float("nan"), float("inf")):
        # The residual is not dropped.
        dropped = [0, 1] if case == "swiglu" else [0]
        for position in dropped:
            inputs[position] = torch.where(keep, inputs[position], worst)
        leaves = [x.clone().requires_grad_() for x in inputs]
        y = fused(*leaves, p, key=KEY)
        assert torch.equal(y, expected)
        dy = torch.where(keep, 1.0, worst)
        gradients = torch.autograd.grad(y, leaves, dy, create_graph=True)
        others = torch.autograd.grad(fused(*leaves, p, key=KEY), leaves, dy)
        for position, gradient in enumerate(gradients):
            if case == "bias_add" and position == 2:
                assert gradient is dy
            else:
                assert gradient.isfinite().all()
                torch.testing.assert_close(gradient, others[position])
        if case != "bias_add" and case != "relu":
            (second,) = torch.autograd.grad(gradients[0].sum(), leaves[0])
            assert second.isfinite().all()
        # On the road of transforms too.
        _, tangent = torch.func.jvp(
            lambda *x: fused(*x, p, key=KEY), tuple(inputs), tuple(map(torch.ones_like, inputs))
        )
        assert tangent.isfinite().all()


def test_nan_that_is_kept_stays():
    for activation in ACTIVATIONS:
        x = torch.full((64,), float("nan"), requires_grad=True)
        y = st.act_dropout(x, activation, 0.5, key=KEY)
        keep = torch.from_numpy(sorix.mask(64, 0.5, *KEY))
        assert torch.equal(y.isnan(), keep)
        y.backward(torch.ones(64))
        expected = torch.where(keep, 2.0 if activation == "relu" else float("nan"), 0.0)
        torch.testing.assert_close(x.grad, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("far", [1e4, None, float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", [*ACTIVATIONS, "swiglu"])
def test_derivatives_far_out_are_those_of_the_asymptotes(case, dtype, far):
    # PyTorch's own have NaN there, by products of zero and infinity.
    far = torch.finfo(dtype).max if far is None else far
    x = torch.tensor([-far, far], dtype=dtype).repeat(40).requires_grad_()
    keep = torch.from_numpy(sorix.mask(80, 0.5, *KEY))
    slope = torch.where(keep & (x > 0), 2.0, 0.0).to(dtype)

    def call(x):
        if case == "swiglu":
            return st.swiglu_dropout(x, torch.ones_like(x), 0.5, key=KEY)
        return st.act_dropout(x, case, 0.5, key=KEY)

    y = call(x)
    assert (y[~keep] == 0).all()
    assert torch.equal(y[keep], torch.where(x > 0, 2 * x, 0.0)[keep])
    for again in (False, True):
        (dx,) = torch.autograd.grad(call(x).sum(), x, create_graph=again)
        assert torch.equal(dx, slope)
    if case != "relu":
        (second,) = torch.autograd.grad(dx.sum(), x)
        assert torch.equal(second, torch.zeros_like(x))
    if case == "swiglu":
        up = torch.ones_like(x, requires_grad=True)
        y = st.swiglu_dropout(x, up, 0.5, key=KEY)
        (d_up,) = torch.autograd.grad(y.sum(), up, create_graph=True)
        assert torch.equal(d_up, y)
        (second,) = torch.autograd.grad(d_up.sum(), x)
        assert torch.equal(second, slope)


def test_of_a_rectifier_one_bit_for_each_element_is_kept():
    x = torch.randn(1000, requires_grad=True)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        y = st.act_dropout(x * 1.0, "relu", 0.5, key=KEY)
        assert saved == []
        assert y.grad_fn.kept[2].nbytes == 128
        st.act_dropout(x * 1.0, "silu", 0.5, key=KEY)
        assert len(saved) == 1


LAYOUTS = {
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(1, 3).contiguous().transpose(1, 3),
    "sliced": lambda x: x.repeat(2, 1, 1, 2)[::2, :, :, ::2],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_do_not_show(layout):
    x, other, bias = torch.randn(4, 6, 5, 3), torch.randn(4, 6, 5, 3), torch.randn(3)
    x, other = LAYOUTS[layout](x), other.transpose(0, 1).contiguous().transpose(0, 1)
    strided = torch.randn(6)
    strided[::2] = bias
    for call in (
        lambda x, other, bias: st.act_dropout(x, "relu", 0.4, bias=bias, key=KEY),
        lambda x, other, bias: st.act_dropout(x, "gelu", 0.4, bias=bias, key=KEY),
        lambda x, other, bias: st.swiglu_dropout(x, other, 0.4, key=KEY),
        lambda x, other, bias: st.bias_dropout_add(x, bias, other, 0.4, key=KEY),
    ):
        results = []
        for tensors in ((x, other, strided[::2]), (x.contiguous(), other.contiguous(), bias)):
            leaves = [tensor.detach().requires_grad_() for tensor in tensors]
            y = call(*leaves)
            assert y.stride() == torch.empty_like(tensors[0]).stride()
            y.backward(other)
            results.append([y.detach(), *(leaf.grad for leaf in leaves)])
        for a, b in zip(*results, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        assert torch.equal(results[0][0], results[1][0])
    for pair in ((x, other), (other, x), (x, x + 1.0), (other, other + 1.0)):
        for options in PATHS:
            y = st.drop_path_add(*pair, 0.4, key=(1, 2), **options)
            assert y.stride() == torch.empty_like(pair[0]).stride()
            assert torch.equal(y, pair[1] + st.drop_path(pair[0], 0.4, key=(1, 2), **options))


def test_paths_of_channels_last_are_read_where_they_lie(monkeypatch):
    x, residual = (torch.randn(4, 6, 5, 3).to(memory_format=torch.channels_last) for _ in range(2))
    expected = residual + st.drop_path(x, 0.4, key=(1, 2))
    monkeypatch.setattr(torch.Tensor, "contiguous", None)
    y = st.drop_path_add(x, residual, 0.4, key=(1, 2))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(y, expected)


def test_shards_and_small_shapes():
    x, other, bias = torch.randn(6, 4, 5), torch.randn(6, 4, 5), torch.randn(5)
    calls = [
        lambda x, other, **k: st.act_dropout(x, "silu", 0.5, key=(7, 8), **k),
        lambda x, other, **k: st.swiglu_dropout(x, other, 0.5, key=(7, 8), **k),
        lambda x, other, **k: st.bias_dropout_add(x, bias, other, 0.5, key=(7, 8), **k),
    ]
    for call in calls:
        whole = call(x, other)
        shard = sorix.Shard(x.shape, 1, 1, 3)
        part = x[:, 1:3].clone().requires_grad_()
        y = call(part, other[:, 1:3], shard=shard)
        assert torch.equal(y, whole[:, 1:3])
        y.sum().backward()
        leaf = x.clone().requires_grad_()
        call(leaf, other).sum().backward()
        assert torch.equal(part.grad, leaf.grad[:, 1:3])
        with pytest.raises(ValueError, match="expected a part of shape"):
            call(x, other, shard=shard)
    for options in PATHS:
        whole = st.drop_path_add(x, other, 0.5, key=(7, 8), **options)
        for axis, start, stop in [(0, 0, 2), (0, 3, 6), (1, 1, 3), (2, 2, 5)]:
            shard = sorix.Shard(x.shape, axis, start, stop)
            pair = (tensor.narrow(axis, start, stop - start) for tensor in (x, other))
            y = st.drop_path_add(*pair, 0.5, key=(7, 8), shard=shard, **options)
            assert torch.equal(y, whole.narrow(axis, start, stop - start))
    for shape in ((), (0,), (3, 0), (5,)):
        x = torch.ones(shape, requires_grad=True)
        bias = torch.ones(shape[-1:], requires_grad=True)
        for y in (
            st.act_dropout(x, "relu", 0.5, bias=bias, key=KEY),
            st.bias_dropout_add(x, bias, x, 0.5, key=KEY),
            st.swiglu_dropout(x, x, 0.5, key=KEY),
            st.drop_path_add(x, x, 0.5, key=KEY),
            st.drop_path_add(x, x, 0.5, mode="batch", key=KEY),
        ):
            assert y.shape == shape
            y.sum().backward()
        assert bias.grad.shape == bias.shape


def test_the_operations_are_what_they_say_they_are():
    key, rate = torch.tensor([1, 2]), torch.tensor(0.3, dtype=torch.float64)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    base, bias = torch.randn(2, 3, 4, 2), torch.randn(2)
    ops = torch.ops.sorix
    for x in (base, base.to(memory_format=torch.channels_last)):
        for operation, arguments in [
            (ops.act_dropout, (x, bias, key, rate, "relu", [])),
            (ops.act_dropout, (x, None, key, rate, "gelu", [])),
            (ops.swiglu_dropout, (x, x + 1.0, key, rate, [])),
            (ops.swiglu_dropout_backward, (x, x + 1.0, x + 2.0, key, rate, [])),
            (ops.bias_dropout_add, (x, bias, x + 1.0, key, rate, [])),
            (ops.dropout_add, (x, x + 1.0, key, rate, 0b1110, _ops.SCALE, [])),
            (ops.dropout_add, (x, x + 1.0, key, rate, 0b1110, _ops.UNSCALED, [])),
        ]:
            torch.library.opcheck(operation.default, arguments, test_utils=tests)
        bits = ops.act_dropout(x, None, key, rate, "relu", [])[1]
        assert bits.shape == (8,)
        none = torch.empty(0, dtype=torch.uint8)
        for arguments in [
            (x, None, None, bits, key, rate, "relu", []),
            (x, x + 1.0, bias, none, key, rate, "silu", []),
        ]:
            torch.library.opcheck(ops.act_dropout_backward.default, arguments, test_utils=tests)


LAYERS = {
    "ReLUDropout": (st.ReLUDropout(0.5), nn.ReLU()),
    "GELUDropout": (st.GELUDropout(0.5), nn.GELU()),
    "GELUDropout, tanh": (st.GELUDropout(0.5, "tanh"), nn.GELU("tanh")),
    "SiLUDropout": (st.SiLUDropout(0.5), nn.SiLU()),
    "SwiGLUDropout": (st.SwiGLUDropout(0.5), None),
}


def gated(x):
    gate, up = x.chunk(2, -1)
    return F.silu(gate) * up


@pytest.mark.parametrize("name", LAYERS)
def test_modules(name):
    layer, activation = LAYERS[name]
    layer, activation = copy.deepcopy(layer), activation or gated
    x = torch.randn(20, 8)
    torch.manual_seed(5)
    y = layer(x)
    torch.manual_seed(5)
    torch.testing.assert_close(y, st.Dropout(0.5)(activation(x)))
    assert not torch.equal(layer(x), y)
    assert torch.equal(layer.eval()(x), activation(x))
    layer.train().p = 0.0
    assert torch.equal(layer(x), activation(x))
    layer.p = 1.0
    assert (layer(x) == 0).all()
    own = copy.deepcopy(LAYERS[name][0])
    own.generator, own.save_mask = torch.Generator().manual_seed(5), "bits"
    state = torch.get_rng_state()
    assert torch.equal(own(x), y)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pickle.loads(pickle.dumps(layer.eval()))(x), activation(x))
    assert repr(LAYERS[name][0]).startswith(f"{name.split(',')[0]}(p=0.5")
    for use_reentrant in (False, True):
        leaf = x.clone().requires_grad_()
        z = checkpoint(lambda x: LAYERS[name][0](x * 2.0), leaf, use_reentrant=use_reentrant)
        z.sum().backward()
        if name != "SwiGLUDropout":
            assert torch.equal(leaf.grad == 0, z == 0)


def test_modules_of_two_and_of_three_tensors():
    x, other, bias = torch.randn(20, 8), torch.randn(20, 8), torch.randn(8)
    torch.manual_seed(5)
    y = st.SwiGLUDropout(0.5)(x, other)
    torch.manual_seed(5)
    assert torch.equal(y, st.SwiGLUDropout(0.5)(torch.cat([x, other], -1)))
    layer = st.DropoutAdd(0.5)
    torch.manual_seed(5)
    y = layer(x, other, bias)
    torch.manual_seed(5)
    assert torch.equal(y, other + st.Dropout(0.5)(x + bias))
    assert torch.equal(layer.eval()(x, other, bias), other + (x + bias))


def test_what_does_not_fit_is_refused():
    x = torch.ones(4, 6)
    double = torch.ones(4, 6).double()
    cases = [
        (
            ValueError,
            "activation: expected one of 'relu', 'gelu'",
            lambda: st.act_dropout(x, "elu"),
        ),
        (ValueError, r"bias: expected shape \(6,\)", lambda: st.act_dropout(x, "relu", bias=x)),
        (
            TypeError,
            "bias: expected torch.float32",
            lambda: st.act_dropout(x, "relu", bias=double[0]),
        ),
        (ValueError, r"up: expected shape \(4, 6\)", lambda: st.swiglu_dropout(x, x[:2])),
        (TypeError, "up: expected torch.float32", lambda: st.swiglu_dropout(x, double)),
        (ValueError, "up: expected a tensor on cpu", lambda: st.swiglu_dropout(x, x.to("meta"))),
        (ValueError, "bias: expected shape", lambda: st.bias_dropout_add(x, x[0, :5], x)),
        (TypeError, "residual: expected", lambda: st.bias_dropout_add(x, x[0], double)),
        (ValueError, "bias: expected shape", lambda: st.DropoutAdd()(x, x, x[0, :1])),
        (ValueError, r"residual: expected shape \(4, 6\)", lambda: st.drop_path_add(x, x[0])),
        (TypeError, "residual: expected torch.float32", lambda: st.drop_path_add(x, double)),
        (ValueError, "residual: expected", lambda: st.DropPath().forward_add(x, x[:1])),
        (TypeError, "residual: expected", lambda: st.DropPath().eval().forward_add(x, double)),
        (ValueError, "mode: expected", lambda: st.drop_path_add(x, x, mode="column")),
        (ValueError, "even length", lambda: st.SwiGLUDropout()(torch.ones(4, 3))),
        (ValueError, "even length", lambda: st.SwiGLUDropout().eval()(torch.ones(()))),
        (ValueError, "approximate: expected", lambda: st.GELUDropout(0.5, "sigmoid")),
        (ValueError, "save_mask", lambda: st.ReLUDropout(save_mask="all")),
        (ValueError, "between 0 and 1", lambda: st.act_dropout(x, "relu", 1.5)),
        (ValueError, "between 0 and 1", lambda: st.swiglu_dropout(x, x, -1.0)),
        (ValueError, "between 0 and 1", lambda: st.bias_dropout_add(x, x[0], x, 2.0)),
        (ValueError, "between 0 and 1", lambda: st.drop_path_add(x, x, -0.5)),
        (ValueError, "between 0 and 1", lambda: st.ReLUDropout(float("nan"))),
    ]
    for kind, text, call in cases:
        with pytest.raises(kind, match=text):
            call()


def test_other_devices_and_dtypes_are_pytorchs():
    meta = torch.ones(4, 6, device="meta")
    assert st.act_dropout(meta, "gelu").device.type == "meta"
    assert st.SwiGLUDropout()(meta).shape == (4, 3)
    assert st.bias_dropout_add(meta, meta[0], meta).device.type == "meta"
    assert st.drop_path_add(meta, meta).device.type == "meta"
    assert st.DropPath().forward_add(meta, meta).device.type == "meta"
    with pytest.raises(TypeError, match="on meta"):
        st.act_dropout(meta, "gelu", key=KEY)
    with pytest.raises(TypeError, match="on meta"):
        st.drop_path_add(meta, meta, key=KEY)
    ones = torch.ones(64, dtype=torch.complex64)
    assert set(st.bias_dropout_add(ones, ones, ones).real.tolist()) == {1.0, 5.0}
    assert set(st.drop_path_add(ones, ones).real.tolist()) == {1.0, 3.0}
    assert set(st.drop_path_add(ones, ones, scale_by_keep=False).real.tolist()) == {1.0, 2.0}
    assert (st.drop_path_add(ones, ones, 1.0).real == 1.0).all()


def test_tensors_of_other_classes_are_dropped_from_by_pytorch():
    class Mine(torch.Tensor):
        pass

    mine, plain = torch.ones(64, 2).as_subclass(Mine), torch.ones(64, 2)
    with pytest.warns(UserWarning, match="Mine .* PyTorch's own dropout is used"):
        st.drop_path_add(mine, plain)
    for pair in ((mine, plain), (plain, mine), (mine, mine)):
        for options in PATHS:
            y = st.drop_path_add(*pair, **options)
            assert type(y) is Mine
            kept = 3.0 if options["scale_by_keep"] else 2.0
            assert set(y.flatten().tolist()) <= {1.0, kept}
            if options["mode"] == "row":
                assert set(y.flatten().tolist()) == {1.0, kept}
            assert torch.equal(y[:, 0], y[:, 1])


def test_transforms():
    x, other, keys = torch.randn(6, 8), torch.randn(6, 8), torch.arange(12).reshape(6, 2)
    bias = torch.randn(8)
    for call in (
        lambda x, other, key: st.act_dropout(x, "gelu", 0.5, bias=bias, key=key),
        lambda x, other, key: st.act_dropout(x, "relu", 0.5, key=key),
        lambda x, other, key: st.swiglu_dropout(x, other, 0.5, key=key),
        lambda x, other, key: st.bias_dropout_add(x, bias, other, 0.5, key=key),
        lambda x, other, key: st.drop_path_add(x, other, 0.5, key=key),
        lambda x, other, key: st.drop_path_add(x, other, 0.5, scale_by_keep=False, key=key),
    ):
        rows = torch.func.vmap(call)(x, other, keys)
        expected = [call(*row) for row in zip(x, other, keys, strict=True)]
        torch.testing.assert_close(rows, torch.stack(expected))

        def loss(x, other, key, call=call):
            return call(x, other, key).sum()

        gradients = torch.func.vmap(torch.func.grad(loss))(x, other, keys)
        for row, gradient in zip(zip(x, other, keys, strict=True), gradients, strict=True):
            leaf = row[0].clone().requires_grad_()
            loss(leaf, *row[1:]).backward()
            torch.testing.assert_close(gradient, leaf.grad)
    # One key: all of a batch are dropped from by one mask, whichever axis is mapped.
    one = st.drop_path_add(x, other, 0.5, key=KEY)

    def by_key(x, other):
        return st.drop_path_add(x, other, 0.5, key=KEY)

    stacked = torch.func.vmap(by_key)(x.expand(3, 6, 8), other.expand(3, 6, 8))
    assert torch.equal(stacked, one.expand(3, 6, 8))
    last = torch.func.vmap(by_key, (1, None), 1)(x[:, None].expand(6, 3, 8), other)
    assert torch.equal(last, one[:, None].expand(6, 3, 8))
    path, ones = st.DropPath(0.5), torch.ones(6, 64, 2)
    same = torch.func.vmap(path.forward_add, randomness="same")(ones, ones)
    assert torch.equal(same, same[:1].expand(6, 64, 2))
    assert set(same.flatten().tolist()) == {1.0, 3.0}
    layer = st.ReLUDropout(0.5)
    ones = torch.ones(6, 64)
    same = torch.func.vmap(layer, randomness="same")(ones)
    assert torch.equal(same, same[:1].expand(6, 64))
    different = torch.func.vmap(layer, randomness="different")(ones)
    assert not torch.equal(different[0], different[1])
    assert set(different.flatten().tolist()) == {0.0, 2.0}


def test_fake_tensors_and_modes():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.ones(4, 6, requires_grad=True)
        for y in (
            st.GELUDropout()(x),
            st.DropoutAdd()(x, x, x[0]),
            st.swiglu_dropout(x, x),
            st.DropPath().forward_add(x, x),
        ):
            assert y.shape == x.shape
            y.sum().backward()
        assert x.grad.shape == x.shape
    with torch.inference_mode():
        assert st.SiLUDropout()(torch.ones(4)).is_inference()
    with torch.no_grad():
        assert not st.act_dropout(torch.ones(4, requires_grad=True), "relu").requires_grad


@pytest.mark.parametrize("backend", ["aot_eager"])
def test_compiled_layers_are_the_plain_ones_and_compiled_once(backend):
    torch._dynamo.reset()
    layers = nn.ModuleList(
        [
            st.ReLUDropout(0.5),
            st.GELUDropout(0.5),
            st.SwiGLUDropout(0.5),
            st.DropoutAdd(0.5),
            st.DropPath(0.5),
        ]
    )

    def model(x, other, bias):
        relu, gelu, gate, add, path = layers
        y = gate(gelu(relu(x) + other), other)
        y = add(y, x, bias)
        y = path.forward_add(y, other)
        y = st.drop_path_add(x, y, 0.25, mode="batch", scale_by_keep=False, key=(5, 6))
        return st.act_dropout(y, "silu", 0.25, bias=bias, key=(3, 4))

    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    x, other = (torch.randn(16, 8, requires_grad=True) for _ in range(2))
    bias = torch.randn(8, requires_grad=True)
    frames = []
    for p in (0.5, 0.1, 1.0):
        for layer in layers:
            layer.p = p
        results = []
        for function in (model, compiled):
            torch.manual_seed(3)
            y = function(x, other, bias)
            results.append((y, *torch.autograd.grad(y, (x, other, bias), x.detach())))
        for plain, other_one in zip(*results, strict=True):
            torch.testing.assert_close(plain, other_one)
        assert torch.equal(results[0][0], results[1][0])
        frames.append(counter.frame_count)
    assert frames == frames[:1] * 3
    torch._dynamo.reset()
