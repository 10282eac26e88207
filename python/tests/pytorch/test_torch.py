"""All that PyTorch does with a module or a function: seeds, checkpoints, compilers, transforms, copies."""

import copy
import io
import pickle
import warnings

import pytest
import sorix.torch as st
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint


def dropped(y):
    return tuple((y == 0).flatten().tolist())


def test_pytorchs_generator_names_the_masks():
    layer, x = st.Dropout(0.5), torch.ones(64)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, second = layer(x), layer(x)
    assert dropped(first) != dropped(second)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    torch.set_rng_state(state)
    assert torch.equal(layer(x), first)
    with torch.random.fork_rng(devices=[]):
        assert torch.equal(layer(x), second)
    assert torch.equal(layer(x), second)
    # In use, and with a key of one's own, nothing is drawn.
    state = torch.get_rng_state()
    layer.eval()(x)
    st.dropout(x, 0.5, key=(1, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_of_ones_own():
    x = torch.ones(64)
    layer = st.Dropout(0.5, generator=torch.Generator().manual_seed(5))
    state = torch.get_rng_state()
    first = layer(x)
    assert torch.equal(torch.get_rng_state(), state)
    layer.generator.manual_seed(5)
    assert torch.equal(layer(x), first)
    generator = torch.Generator().manual_seed(5)
    assert torch.equal(st.dropout(x, 0.5, generator=generator), first)


@pytest.mark.parametrize("save_mask", ["key", "bits"])
@pytest.mark.parametrize("function", [st.dropout, st.dropout2d, st.alpha_dropout, st.drop_path])
def test_gradients(function, save_mask):
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)

    def call(x):
        return function(x, 0.3, True, key=(1, 2), save_mask=save_mask)

    assert torch.autograd.gradcheck(
        call, x, check_forward_ad=True, check_batched_grad=True, check_undefined_grad=False
    )
    assert torch.autograd.gradgradcheck(call, x)
    y = call(x)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    assert dx.requires_grad is False or dx.grad_fn is not None
    rows = torch.autograd.grad(
        y, x, torch.eye(24).double().reshape(24, *x.shape), is_grads_batched=True
    )
    assert torch.allclose(rows[0].reshape(24, 24).sum(0), dx.detach().flatten())


@pytest.mark.parametrize("save_mask", ["key", "bits"])
def test_gradients_of_a_sum(save_mask):
    x, residual = torch.randn(2, 6, 4, dtype=torch.float64).requires_grad_().unbind()

    def call(x, residual):
        return st.dropout_add(x, residual, 0.3, key=(1, 2), save_mask=save_mask)

    assert torch.autograd.gradcheck(
        call, (x, residual), check_forward_ad=True, check_batched_grad=True
    )
    assert torch.autograd.gradgradcheck(call, (x, residual))
    with torch.autograd.forward_ad.dual_level():
        for position in (0, 1):
            inputs = [x.detach(), residual.detach()]
            inputs[position] = torch.autograd.forward_ad.make_dual(inputs[position], residual)
            tangent = torch.autograd.forward_ad.unpack_dual(call(*inputs)).tangent
            expected = residual if position else st.dropout(residual, 0.3, key=(1, 2))
            assert torch.equal(tangent, expected)


def test_the_sum_is_what_it_says_it_is():
    key, rate = torch.tensor([1, 2]), torch.tensor(0.3, dtype=torch.float64)
    base = torch.randn(2, 3, 4, 2)
    for x in (base, base.to(memory_format=torch.channels_last), base[:, :, ::2]):
        torch.library.opcheck(
            torch.ops.sorix.dropout_add.default,
            (x, torch.ones_like(x), key, rate, 0, 0, []),
            test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
        )


def test_a_module_that_adds():
    layer = st.DropoutAdd(0.25)
    assert repr(layer) == "DropoutAdd(p=0.25)"
    x, residual = torch.randn(2, 1000)
    torch.manual_seed(5)
    y = layer(x, residual)
    torch.manual_seed(5)
    assert torch.equal(y, residual + st.Dropout(0.25)(x))
    assert not torch.equal(layer(x, residual), y)
    assert torch.equal(layer.eval()(x, residual), residual + x)
    assert torch.equal(st.DropoutAdd(0.0)(x, residual), residual + x)
    state = torch.get_rng_state()
    own = st.DropoutAdd(0.25, generator=torch.Generator().manual_seed(5), save_mask="bits")
    assert torch.equal(own(x, residual), y)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x, residual), residual + x)
    for checkpointed in (False, True):
        x, r = torch.ones(2, 100).unbind()
        x.requires_grad_()
        z = checkpoint(
            lambda x, r: st.DropoutAdd(0.5)(x * 2.0, r), x, r, use_reentrant=checkpointed
        )
        z.sum().backward()
        assert torch.equal(x.grad, torch.where(z == 1, 0.0, 4.0))


@pytest.mark.parametrize("shared", [0, 0b1100])
@pytest.mark.parametrize("form", [0, 1, 3])
def test_the_operation_is_what_it_says_it_is(form, shared):
    base = torch.randn(2, 3, 4, 2)
    key, rate = torch.tensor([1, 2]), torch.tensor(0.3, dtype=torch.float64)
    for x in (base, base.to(memory_format=torch.channels_last), base[:, :, ::2]):
        torch.library.opcheck(
            torch.ops.sorix.dropout.default,
            (x, key, rate, shared, form, []),
            test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
        )


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("patched", [False, True])
def test_a_checkpoint_computes_the_same_again(use_reentrant, patched):
    layer = nn.Dropout(0.5) if patched else st.Dropout(0.5)
    x = torch.randn(100, requires_grad=True)
    with st.patch() if patched else warnings.catch_warnings():
        y = checkpoint(lambda x: layer(x * 2.0), x, use_reentrant=use_reentrant)
        y.sum().backward()
    assert 0 < len(y[y == 0]) < 100
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, 4.0))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_a_checkpoint_with_a_generator_that_it_does_not_put_back_is_refused(use_reentrant):
    layer = st.Dropout(0.5, generator=torch.Generator())
    x = torch.randn(100, requires_grad=True)
    y = checkpoint(lambda x: layer(x).exp(), x, use_reentrant=use_reentrant)
    with pytest.raises(RuntimeError, match="Leave generator=None"):
        y.sum().backward()


class Net(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.dropout = layer

    def forward(self, x):
        return self.dropout(torch.relu(self.linear(x)) + 1.0)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize(
    "layer",
    [
        st.Dropout(0.5),
        st.Dropout1d(0.5),
        st.AlphaDropout(0.5),
        st.DropPath(0.5),
        st.Dropout(0.5, True),
    ],
    ids=repr,
)
def test_compiled_models_draw_at_each_call_and_are_compiled_once(backend, layer):
    torch._dynamo.reset()
    model = Net(copy.deepcopy(layer))
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    x = torch.randn(16, 4, 8)
    outputs = [compiled(x)]
    frames = counter.frame_count
    outputs += [compiled(x) for _ in range(3)]
    assert len({tuple(y.flatten().tolist()) for y in outputs}) == 4
    outputs[0].sum().backward()
    assert model.linear.weight.grad.abs().sum() > 0
    # A new p is an input of the graph that is there.
    for p in (0.1, 0.2, 0.9, 1.0, 0.0):
        model.dropout.p = p
        y = compiled(x)
        if type(layer) is st.Dropout:
            assert abs(y.eq(0).float().mean() - p) < 0.1
    assert counter.frame_count == frames
    # In use it is another graph, without a draw.
    model.eval()
    assert torch.allclose(compiled(x), model(x))
    torch._dynamo.reset()


def test_a_compiled_model_drops_what_the_plain_one_does():
    torch._dynamo.reset()
    model = Net(st.Dropout(0.5))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    x = torch.randn(16, 8)
    torch.manual_seed(3)
    plain = model(x)
    plain.sum().backward()
    gradient = model.linear.weight.grad.clone()
    model.zero_grad()
    torch.manual_seed(3)
    y = compiled(x)
    y.sum().backward()
    assert torch.equal(y, plain)
    assert torch.equal(model.linear.weight.grad, gradient)
    torch._dynamo.reset()


def test_a_compiled_model_hands_its_p_to_pytorch():
    x, add = torch.ones(64, dtype=torch.complex64), st.DropoutAdd(1.0)
    for layer in (st.Dropout(1.0), st.DropPath(1.0), lambda x: add(x, x) - x):
        torch._dynamo.reset()
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        assert (compiled(x) == 0).all()
    torch._dynamo.reset()


def test_functions_compile():
    torch._dynamo.reset()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def function(x, key):
        return st.dropout(x, 0.5, key=key) + st.dropout2d(x, 0.5, key=(3, 4))

    x, key = torch.ones(4, 3, 2, 2), torch.tensor([1, 2])
    expected = st.dropout(x, 0.5, key=(1, 2)) + st.dropout2d(x, 0.5, key=(3, 4))
    assert torch.equal(function(x, key), expected)
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_sum_is_the_plain_one_and_compiled_once(backend):
    torch._dynamo.reset()
    layer = st.DropoutAdd(0.5)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(layer, backend=counter, fullgraph=True)
    x, residual = (torch.randn(16, 8, requires_grad=True) for _ in range(2))
    frames = []
    for p in (0.5, 0.1, 1.0, 0.0):
        layer.p = p
        results = []
        for module in (layer, compiled):
            torch.manual_seed(3)
            y = module(x, residual)
            results.append((y, *torch.autograd.grad(y, (x, residual), x.detach())))
        for plain, other in zip(*results, strict=True):
            assert torch.equal(plain, other)
        frames.append(counter.frame_count)
    assert frames == frames[:1] * 4
    torch._dynamo.reset()

    @torch.compile(backend=backend, fullgraph=True)
    def function(x, residual):
        return st.dropout_add(x, residual, 0.5, key=(3, 4))

    assert torch.equal(function(x, residual), st.dropout_add(x, residual, 0.5, key=(3, 4)))
    torch._dynamo.reset()


def test_autocast_leaves_the_dtype():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert st.Dropout(0.5)(torch.ones(3)).dtype == torch.float32
        model = nn.Sequential(nn.Linear(3, 3), st.Dropout(0.5))
        assert model(torch.ones(2, 3)).dtype == torch.bfloat16


def test_vmap():
    x = torch.ones(6, 64)
    layer = st.Dropout(0.5)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(layer)(x)
    same = torch.func.vmap(layer, randomness="same")(x)
    assert len({dropped(row) for row in same}) == 1
    different = torch.func.vmap(layer, randomness="different")(x)
    assert len({dropped(row) for row in different}) == 6

    # A key for each sample, along any axis; and the same key for all.
    keys = torch.arange(12).reshape(6, 2)
    rows = torch.func.vmap(lambda x, key: st.dropout(x, 0.5, key=key), in_dims=(1, 0))(x.T, keys)
    for row, key in zip(rows, keys, strict=True):
        assert torch.equal(row, st.dropout(x[0], 0.5, key=key))
    rows = torch.func.vmap(lambda x: st.dropout1d(x, 0.5, key=(1, 2)))(torch.ones(3, 5, 4))
    assert torch.equal(rows[1], st.dropout1d(torch.ones(5, 4), 0.5, key=(1, 2)))

    def loss(x, key):
        return st.dropout(x, 0.5, key=key).sum()

    gradients = torch.func.vmap(torch.func.grad(loss))(x, keys)
    assert torch.equal(
        gradients, torch.stack([st.dropout(r, 0.5, key=k) for r, k in zip(x, keys, strict=True)])
    )
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        matrix = jacobian(lambda x: st.dropout(x, 0.5, key=(1, 2)))(x[0])
        assert torch.equal(matrix, torch.diag(st.dropout(x[0], 0.5, key=(1, 2))))
    _, tangent = torch.func.jvp(lambda x: st.dropout(x, 0.5, key=(1, 2)), (x[0],), (x[0] * 3,))
    assert torch.equal(tangent, 3 * st.dropout(x[0], 0.5, key=(1, 2)))


def test_vmap_of_a_sum():
    x, residual, keys = torch.randn(6, 64), torch.randn(64, 6), torch.arange(12).reshape(6, 2)

    def add(x, residual, key):
        return st.dropout_add(x, residual, 0.5, key=key)

    rows = torch.func.vmap(add, in_dims=(0, 1, 0))(x, residual, keys)
    expected = [add(*row) for row in zip(x, residual.T, keys, strict=True)]
    assert torch.equal(rows, torch.stack(expected))
    # One key is one mask, and either of the two may be the same for all samples.
    for dims in ((0, 1), (None, 1), (0, None)):
        inputs = x if dims[0] == 0 else x[0], residual if dims[1] == 1 else residual[:, 0]
        rows = torch.func.vmap(lambda x, r: add(x, r, (1, 2)), in_dims=dims)(*inputs)
        whole = (tensor.expand(6, 64) for tensor in (inputs[0], inputs[1].t()))
        expected = [add(*row, (1, 2)) for row in zip(*whole, strict=True)]
        assert torch.equal(rows, torch.stack(expected))
    jacobians = torch.func.jacrev(add, argnums=(0, 1))(x[0], residual[:, 0], (1, 2))
    assert torch.equal(jacobians[0], torch.diag(st.dropout(torch.ones(64), 0.5, key=(1, 2))))
    assert torch.equal(jacobians[1], torch.eye(64))
    forward = torch.func.jacfwd(add, argnums=(0, 1))(x[0], residual[:, 0], (1, 2))
    assert torch.equal(forward[0], jacobians[0])
    assert torch.equal(forward[1], jacobians[1])


def test_copies_pickles_and_states():
    model = nn.Sequential(
        nn.Linear(3, 3), st.Dropout(0.25, generator=torch.Generator().manual_seed(3))
    )
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    copies = [
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ]
    expected = model[1](torch.ones(64))
    for other in copies:
        assert other[1].p == 0.25
        assert other[1].generator is not model[1].generator
        assert torch.equal(other[1](torch.ones(64)), expected)
    # There is nothing of it in a state, neither way.
    theirs = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))
    assert list(model.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(model.state_dict(), strict=True)
    model.load_state_dict(theirs.state_dict(), strict=True)
    assert not list(model[1].buffers())
    assert model.half()[1].p == 0.25


def test_inference_mode_and_no_grad():
    layer, x = st.Dropout(0.5), torch.ones(64, requires_grad=True)
    with torch.inference_mode():
        y = layer(x)
        assert y.is_inference()
        assert 0 < y.sum() < 128
        z = layer(y)
        st.dropout(z, 0.5, inplace=True)
        fresh = st.Dropout(0.5)
    with torch.no_grad():
        assert not layer(x).requires_grad
    assert fresh(x).requires_grad
    fresh.p = 0.1


def test_fake_tensors_and_other_devices():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        layer = st.Dropout2d(0.5)
        x = torch.ones(4, 3, 2, 2, requires_grad=True)
        y = layer(x)
        assert y.shape == x.shape
        assert y.requires_grad
        y.sum().backward()
        assert x.grad.shape == x.shape
        y = st.DropoutAdd(0.5)(x, torch.ones_like(x))
        assert y.shape == x.shape
        assert y.requires_grad
    assert layer(torch.ones(2, 3, 2, 2)).shape == (2, 3, 2, 2)
    for device_layer in (st.Dropout(0.5), st.AlphaDropout(0.5), st.DropPath(0.5)):
        assert device_layer(torch.ones(3, 2, device="meta")).device.type == "meta"
    with torch.device("meta"):
        layer = st.Dropout(0.5)
    assert layer(torch.ones(4)).shape == (4,)
    meta = torch.ones(3, 2, device="meta")
    assert st.dropout_add(meta, meta, 0.5).device.type == "meta"
    complex_ones = torch.ones(64, dtype=torch.complex64)
    added = st.dropout_add(complex_ones, complex_ones, 0.5)
    assert set(added.real.tolist()) == {1.0, 3.0}
    with pytest.raises(TypeError, match="on meta"):
        st.dropout_add(meta, meta, 0.5, key=(1, 2))
    with pytest.raises(TypeError, match="on meta"):
        st.dropout(torch.ones(3, device="meta"), 0.5, key=(1, 2))
    assert st.dropout(torch.ones(3, dtype=torch.complex64), 0.5).dtype == torch.complex64


class Wrapped(torch.Tensor):
    pass


def test_what_is_no_ordinary_tensor_goes_to_pytorch_and_that_is_said_once():
    x = torch.ones(64).as_subclass(Wrapped)
    with pytest.warns(UserWarning, match="Wrapped .* PyTorch's own dropout is used"):
        y = st.dropout(x, 0.5)
    assert type(y) is Wrapped
    assert 0 < y.sum() < 128
    # `filterwarnings` makes an error of a second one.
    st.dropout(x, 0.5)
    nested = torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged)
    with pytest.warns(UserWarning, match="own dropout"):
        assert st.dropout(nested, 0.5).is_nested
    with pytest.raises(TypeError, match="Wrapped"):
        st.dropout(x, 0.5, key=(1, 2))


def test_modes_see_the_operation():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    names = []
    with Seen():
        st.dropout(torch.ones(3), 0.5, key=(1, 2))
    assert "sorix.dropout.default" in names


def test_replace_swaps_modules_and_tells_which():
    shared = nn.Dropout(0.3)
    calls = []
    model = nn.ModuleDict(
        {
            "a": nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.1), nn.AlphaDropout(0.2, True)),
            "b": nn.TransformerEncoderLayer(8, 2, dropout=0.4),
            "c": shared,
            "d": shared,
        }
    )
    model["a"][1].register_forward_hook(lambda *_: calls.append(1))
    model["a"][2].eval()
    model["c"].note = "kept"
    names = st.replace(model)
    assert names == ["c", "d", "a.1", "a.2", "b.dropout", "b.dropout1", "b.dropout2"]
    assert type(model["a"][1]) is st.Dropout
    assert model["a"][1].p == 0.1
    assert type(model["a"][2]) is st.AlphaDropout
    assert model["a"][2].inplace
    assert not model["a"][2].training
    assert model["a"][1].training
    assert model["c"] is model["d"]
    assert model["c"].note == "kept"
    model["a"](torch.ones(2, 3))
    assert calls == [1]
    assert st.replace(model) == []
    with pytest.raises(ValueError, match="use sorix.torch.Dropout"):
        st.replace(nn.Dropout(0.5))
