"""A residual plus dropout, normalised: as PyTorch's operations one after the other by the same mask."""

import copy

import pytest
import sorix
import sorix.torch as st
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

KEY = (2**64 - 1, 5)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
CLOSE = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 2e-6, torch.float64: 1e-13}


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def apart(x, residual, weight, bias, p, norm, axes=1):
    """In the dtype that the inputs have."""
    keep = torch.from_numpy(sorix.mask(tuple(x.shape), p, *KEY))
    total = residual + torch.where(keep, x * (1 / (1 - p) if p < 1 else 0.0), 0.0)
    shape = x.shape[x.dim() - axes :]
    if norm == "layer":
        return F.layer_norm(total, shape, weight, bias, 1e-5), total
    z = F.rms_norm(total, shape, weight, 1e-5)
    return z if bias is None else z + bias, total


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("save_mask", ["key", "bits"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients_are_those_of_the_operations_apart(dtype, save_mask, norm, p):
    of_sum = wide(dtype)
    x = torch.randn(20, 70).to(dtype).requires_grad_()
    residual = torch.randn(20, 70, dtype=of_sum, requires_grad=True)
    weight, bias = (torch.randn(70).to(dtype).requires_grad_() for _ in range(2))
    inputs = x, residual, weight, bias
    options = {"norm": norm, "key": KEY, "save_mask": save_mask}
    z, total = st.dropout_add_norm(x, residual, 70, weight, bias, p, **options)
    assert (z.dtype, total.dtype) == (dtype, of_sum)
    copies = [tensor.detach().to(of_sum).requires_grad_() for tensor in inputs]
    expected = apart(*copies, p, norm)
    tolerance = {"rtol": CLOSE[dtype], "atol": 10 * CLOSE[of_sum]}
    torch.testing.assert_close(z, expected[0].to(dtype), **tolerance)
    torch.testing.assert_close(total, expected[1], rtol=0, atol=0)
    dz, more = torch.randn(20, 70).to(dtype), torch.randn(20, 70, dtype=of_sum)
    # In the prenorm form a gradient comes to both.
    for outputs, others, grads in (
        ([z, total], expected, [dz, more]),
        ([z], expected[:1], [dz]),
        ([total], expected[1:], [more]),
    ):
        got = torch.autograd.grad(outputs, inputs, grads, retain_graph=True, allow_unused=True)
        wanted = torch.autograd.grad(
            others,
            copies,
            [grad.to(of_sum) for grad in grads],
            retain_graph=True,
            allow_unused=True,
        )
        for tensor, a, b in zip(inputs, got, wanted, strict=True):
            assert (a is None) == (b is None)
            if a is not None:
                assert a.dtype == tensor.dtype
                tolerance["atol"] = 20 * (10 if tensor.dim() == 1 else 1) * CLOSE[of_sum]
                torch.testing.assert_close(a, b.to(a.dtype), **tolerance)
    with torch.no_grad():
        again = st.dropout_add_norm(x, residual, 70, weight, bias, p, **options)
    assert torch.equal(again[0], z)


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("affine", [True, False])
def test_the_door_of_tensors_gives_the_same_bits(norm, affine):
    x, residual, dz = torch.randn(3, 20, 70, dtype=torch.float32)
    rows = torch.randn(2, 70) if affine else (None, None)
    own = [sorix.tensor(tensor.numpy(), requires_grad=True) for tensor in (x, residual)]
    own_rows = [None if row is None else sorix.tensor(row.numpy()) for row in rows]
    key = {"seed": KEY[0], "offset": KEY[1]}
    w, sums = own[0].dropout_add_norm(
        own[1], 0.3, norm=norm, weight=own_rows[0], shift=own_rows[1], **key
    )
    x.requires_grad_()
    z, total = st.dropout_add_norm(x, residual, 70, *rows, 0.3, norm=norm, key=KEY)
    assert (z.detach().numpy() == w.data).all()
    assert (total.detach().numpy() == sums.data).all()
    z.backward(dz)
    w.backward(sorix.tensor(dz.numpy()))
    assert (x.grad.numpy() == own[0].grad.data).all()


@pytest.mark.parametrize("norm", ["layer", "rms"])
@pytest.mark.parametrize("affine", [True, False])
def test_all_kinds_of_gradients(norm, affine):
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in [(3, 2, 4), (3, 2, 4)]]
    inputs += [torch.randn(2, 4, dtype=torch.float64) for _ in range(2 * affine)]
    inputs = [x.requires_grad_() for x in inputs]

    def call(x, residual, *rows):
        return st.dropout_add_norm(x, residual, (2, 4), *rows, p=0.3, norm=norm, key=(1, 2))

    assert torch.autograd.gradcheck(call, inputs, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, inputs)


def test_nan_in_what_is_dropped_gets_nowhere():
    keep = torch.from_numpy(sorix.mask((20, 70), 0.5, *KEY))
    x, residual = torch.randn(2, 20, 70)
    expected = st.dropout_add_norm(x, residual, 70, key=KEY)
    x = torch.where(keep, x, float("nan")).requires_grad_()
    outputs = st.dropout_add_norm(x, residual, 70, key=KEY)
    for a, b in zip(outputs, expected, strict=True):
        assert torch.equal(a, b)
    outputs[0].sum().backward()
    assert (x.grad[~keep] == 0).all()
    assert x.grad.isfinite().all()


def test_layouts_shards_and_small_shapes():
    x, residual = torch.randn(6, 4, 5), torch.randn(4, 6, 5).transpose(0, 1)
    whole = st.dropout_add_norm(x, residual, 5, key=(7, 8))
    strided = x.transpose(0, 2).contiguous().transpose(0, 2)
    for a, b in zip(st.dropout_add_norm(strided, residual, 5, key=(7, 8)), whole, strict=True):
        assert torch.equal(a, b)
    shard = sorix.Shard(x.shape, 1, 1, 3)
    part = st.dropout_add_norm(x[:, 1:3], residual[:, 1:3], 5, key=(7, 8), shard=shard)
    for a, b in zip(part, whole, strict=True):
        assert torch.equal(a, b[:, 1:3])
    for shape in ((0, 5), (3, 0), (5,)):
        x = torch.ones(shape, requires_grad=True)
        weight = torch.ones(shape[-1:], requires_grad=True)
        z, total = st.dropout_add_norm(x, x, shape[-1], weight, key=KEY)
        assert z.shape == total.shape == shape
        (z + total).sum().backward()
        assert weight.grad.shape == weight.shape


def test_the_operations_are_what_they_say_they_are():
    key, rate = torch.tensor([1, 2]), torch.tensor(0.3, dtype=torch.float64)
    tests = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    x, residual, weight = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.randn(4)
    ops = torch.ops.sorix
    for arguments in [
        (x, residual, weight, weight + 1.0, key, rate, 1, 1e-5, False, []),
        (x.bfloat16(), residual, None, None, key, rate, 2, 1e-5, True, []),
    ]:
        operation = ops.dropout_add_norm.default
        torch.library.opcheck(operation, arguments, test_utils=tests)
        z, total, moments = operation(*arguments)
        options = arguments[6:9]
        more = z.clone(), torch.ones_like(total), total, moments, arguments[2], *options
        torch.library.opcheck(ops.dropout_add_norm_backward.default, more, test_utils=tests)


def test_the_module():
    layer = st.DropoutAddNorm(8, 0.25)
    assert repr(layer) == "DropoutAddNorm((8,), p=0.25, eps=1e-05, norm='layer')"
    theirs = nn.LayerNorm(8)
    nn.init.normal_(theirs.weight)
    nn.init.normal_(theirs.bias)
    layer.load_state_dict(theirs.state_dict())
    x, residual = torch.randn(2, 20, 8)
    torch.manual_seed(5)
    z, total = layer(x, residual)
    torch.manual_seed(5)
    assert torch.equal(total, residual + st.Dropout(0.25)(x))
    torch.testing.assert_close(z, theirs(total))
    state = torch.get_rng_state()
    z, total = layer.eval()(x, residual)
    assert torch.equal(total, residual + x)
    torch.testing.assert_close(z, theirs(total))
    layer.train().p = 0.0
    assert torch.equal(layer(x, residual)[0], z)
    assert torch.equal(torch.get_rng_state(), state)
    rms = st.DropoutAddNorm((5, 8), norm="rms", dtype=torch.bfloat16)
    assert [name for name, _ in rms.named_parameters()] == ["weight"]
    assert rms.weight.shape == (5, 8)
    z, total = rms(torch.ones(3, 5, 8).bfloat16(), torch.ones(3, 5, 8))
    assert (z.dtype, total.dtype) == (torch.bfloat16, torch.float32)
    assert not list(st.DropoutAddNorm(8, elementwise_affine=False).parameters())
    assert len(list(st.DropoutAddNorm(8, bias=False).parameters())) == 1


def test_transforms_fake_tensors_and_other_devices():
    from torch._subclasses.fake_tensor import FakeTensorMode

    layer = st.DropoutAddNorm(8)
    x, residual, keys = torch.randn(6, 3, 8), torch.randn(6, 3, 8), torch.arange(12).reshape(6, 2)

    def call(x, residual, key):
        return st.dropout_add_norm(x, residual, 8, layer.weight, layer.bias, key=key)

    rows = torch.func.vmap(call)(x, residual, keys)
    expected = [call(*row) for row in zip(x, residual, keys, strict=True)]
    for a, b in zip(rows, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(b))
    with FakeTensorMode(allow_non_fake_inputs=True):
        fake = torch.ones(3, 8, requires_grad=True)
        z, total = layer(fake, fake)
        (z + total).sum().backward()
        assert fake.grad.shape == (3, 8)
    meta = torch.ones(3, 8, device="meta")
    assert copy.deepcopy(layer).to("meta")(meta, meta)[0].device.type == "meta"


def test_what_does_not_fit_is_refused():
    x, double = torch.ones(4, 6), torch.ones(4, 6).double()
    layer = st.DropoutAddNorm(6)
    call = st.dropout_add_norm
    for kind, text, wrong in [
        (ValueError, r"ends in \(5,\)", lambda: call(x, x, 5)),
        (ValueError, r"ends in \(\)", lambda: call(x, x, ())),
        (ValueError, r"residual: expected shape \(4, 6\)", lambda: layer(x, x[0])),
        (TypeError, "residual: expected torch.float32", lambda: layer(x, double)),
        (TypeError, "weight: expected torch.float64", lambda: layer(double, double)),
        (TypeError, "residual: expected torch.float16", lambda: call(x.half(), x.bfloat16(), 6)),
        (ValueError, r"weight: expected shape \(6,\)", lambda: call(x, x, 6, x)),
        (ValueError, r"bias: expected shape \(6,\)", lambda: call(x, x, 6, x[0], x[0, :1])),
        (ValueError, "norm: expected", lambda: call(x, x, 6, norm="batch")),
        (ValueError, "norm: expected", lambda: st.DropoutAddNorm(6, norm="batch")),
        (ValueError, "eps: expected", lambda: call(x, x, 6, eps=-1.0)),
        (ValueError, "eps: expected", lambda: st.DropoutAddNorm(6, eps=float("nan"))),
        (ValueError, "between 0 and 1", lambda: call(x, x, 6, p=2.0)),
    ]:
        with pytest.raises(kind, match=text):
            wrong()


def test_a_compiled_layer_is_the_plain_one_and_compiled_once():
    torch._dynamo.reset()
    layers = nn.ModuleList([st.DropoutAddNorm(8), st.DropoutAddNorm(8, norm="rms")])

    def model(x, residual):
        z, total = layers[0](x, residual)
        return layers[1](z, total)

    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    x, residual = (torch.randn(16, 8, requires_grad=True) for _ in range(2))
    frames = []
    for p in (0.5, 0.1, 1.0):
        for layer in layers:
            layer.p = p
        results = []
        for function in (model, compiled):
            torch.manual_seed(3)
            z, total = function(x, residual)
            gradients = torch.autograd.grad(
                z.square().sum() + total.sum(), [x, residual, *layers.parameters()]
            )
            results.append((z, total, *gradients))
        for plain, other in zip(*results, strict=True):
            torch.testing.assert_close(plain, other)
        assert torch.equal(results[0][0], results[1][0])
        frames.append(counter.frame_count)
    assert frames == frames[:1] * 3
    layers.eval()
    assert torch.equal(compiled(x, residual)[0], model(x, residual)[0])
    torch._dynamo.reset()
