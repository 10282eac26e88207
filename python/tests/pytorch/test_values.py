"""What comes out: for every dtype, every memory layout, every form."""

import numpy as np
import pytest
import sorix
import sorix.torch as st
import torch
from torch import nn

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def same(a, b):
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_elements_are_those_that_numpy_has(dtype, p):
    x = torch.randn(3, 1000, dtype=torch.float64).to(dtype)
    key = (2**64 - 1, 2**63 + 5)
    y = st.dropout(x, p, key=key)
    keep = torch.from_numpy(sorix.mask(x.shape, p, *key))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    scale = torch.tensor(1 / (1 - p) if p < 1 else 0.0, dtype=wide)
    same(y, torch.where(keep, (x.to(wide) * scale).to(dtype), 0.0))
    if dtype != torch.bfloat16:
        array = sorix.dropout(x.numpy(), p, seed=key[0], offset=key[1])
        np.testing.assert_array_equal(y.numpy(), array)
    signed = torch.tensor([-1, -(2**63) + 5])
    same(y, st.dropout(x, p, key=signed))


LAYOUTS = {
    "contiguous": lambda: torch.randn(4, 6, 5, 3),
    "channels last": lambda: torch.randn(4, 6, 5, 3).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(3, 5, 6, 4).permute(3, 2, 1, 0),
    "sliced": lambda: torch.randn(8, 6, 5, 7)[::2, :, :, 1:4],
    "expanded": lambda: torch.randn(4, 6, 1, 3).expand(4, 6, 5, 3),
    "one row": lambda: torch.randn(1, 6, 5, 3),
    "empty": lambda: torch.randn(4, 0, 5, 3),
}
FORMS = {
    "elements": (lambda x, **k: st.dropout(x, 0.4, **k), (0, 1, 2, 3)),
    "channels": (lambda x, **k: st.dropout2d(x, 0.4, **k), (0, 1)),
    "rows": (lambda x, **k: st.drop_path(x, 0.4, **k), (0,)),
    "batch": (lambda x, **k: st.drop_path(x, 0.4, mode="batch", **k), ()),
    "locked": (lambda x, **k: st.locked_dropout(x, 0.4, time_axis=1, **k), (0, 2, 3)),
    "alpha": (lambda x, **k: st.alpha_dropout(x, 0.4, True, **k), (0, 1, 2, 3)),
    "features": (lambda x, **k: st.feature_alpha_dropout(x, 0.4, True, **k), (0, 1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
def test_layouts_do_not_show_in_what_is_dropped_and_are_kept(form, layout):
    function, own = FORMS[form]
    x = LAYOUTS[layout]()
    y = function(x, key=(1, 2))
    assert y.stride() == torch.empty_like(x).stride()
    same(y, function(x.contiguous(), key=(1, 2)))
    shape = [length if axis in own else 1 for axis, length in enumerate(x.shape)]
    keep = torch.from_numpy(sorix.mask(shape, 0.4, 1, 2)).expand(x.shape)
    if "alpha" in form or form == "features":
        # The map of Klambauer et al., Self-normalizing neural networks: to alpha' and back.
        alpha = -1.7580993408473766
        a = (0.6 * (1 + 0.4 * alpha**2)) ** -0.5
        expected = torch.where(keep, x, alpha) * a - a * alpha * 0.4
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    else:
        same(y, torch.where(keep, x * torch.tensor(1 / 0.6, dtype=x.dtype), 0.0))

    # And so is what is written in place.
    if layout != "expanded":
        z = x.clone()
        assert function(z, key=(1, 2), inplace=True) is z
        same(z, y)
        assert z.stride() == x.clone().stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("save_mask", ["key", "bits"])
def test_gradients_have_the_mask_of_the_output(form, layout, save_mask):
    function, _ = FORMS[form]
    x = LAYOUTS[layout]().requires_grad_()
    y = function(x, key=(1, 2), save_mask=save_mask)
    dy = torch.randn_like(y)
    (dx,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    # The derivative of a map that is linear but for a constant.
    one = function(x.detach() + 1.0, key=(1, 2)) - function(x.detach(), key=(1, 2))
    torch.testing.assert_close(dx, one * dy, rtol=2e-4, atol=2e-5)
    (again,) = torch.autograd.grad(y, x, dy)
    same(again, dx)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("save_mask", ["key", "bits"])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1.0])
def test_a_residual_is_added_in_one_pass(dtype, save_mask, p):
    x, residual = torch.randn(2, 3, 1000, dtype=torch.float64).to(dtype)
    x.requires_grad_()
    residual.requires_grad_()
    key = (2**64 - 1, 5)
    y = st.dropout_add(x, residual, p, key=key, save_mask=save_mask)
    # Each product and each sum rounded in the type computed in, and 16 bits once more.
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    dropped = st.dropout(x.detach().to(wide), p, key=key)
    same(y.detach(), (residual.detach().to(wide) + dropped).to(dtype))
    if dtype != torch.bfloat16:
        arrays = x.detach().numpy(), residual.detach().numpy()
        expected = sorix.dropout_add(*arrays, p, seed=key[0], offset=key[1])
        np.testing.assert_array_equal(y.detach().numpy(), expected)
    dy = torch.randn(3, 1000).to(dtype)
    dx, dr = torch.autograd.grad(y, (x, residual), dy)
    same(dx, st.dropout(dy, p, key=key))
    same(dr, dy)
    # One of the two is enough to be recorded.
    for inputs in ((x, residual.detach()), (x.detach(), residual)):
        z = st.dropout_add(*inputs, p, key=key, save_mask=save_mask)
        same(z.detach(), y.detach())
        z.backward(dy)
    same(x.grad, dx)
    same(residual.grad, dy)


@pytest.mark.parametrize("of_residual", [layout for layout in LAYOUTS if layout != "empty"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_two_tensors_do_not_show(layout, of_residual):
    x, residual = LAYOUTS[layout](), LAYOUTS[of_residual]()
    if layout == "empty":
        residual = residual[:, :0]
    shape = torch.broadcast_shapes(x.shape, residual.shape)
    x, residual = x.expand(shape), residual.expand(shape)
    y = st.dropout_add(x, residual, 0.4, key=(1, 2))
    assert y.stride() == torch.empty_like(x).stride()
    same(y, residual + st.dropout(x, 0.4, key=(1, 2)))


def test_a_residual_that_does_not_fit_is_refused():
    x, layer = torch.ones(4, 3), st.DropoutAdd(0.5)
    for residual, kind, text in [
        (torch.ones(3, 4), ValueError, r"residual: expected shape \(4, 3\), got \(3, 4\)"),
        (torch.ones(3), ValueError, "residual: expected shape"),
        (
            torch.ones(4, 3).double(),
            TypeError,
            "residual: expected torch.float32, got torch.float64",
        ),
        (torch.ones(4, 3, device="meta"), ValueError, "residual: expected a tensor on cpu"),
    ]:
        for call in (layer.train(), layer.eval(), st.dropout_add):
            with pytest.raises(kind, match=text):
                call(x, residual)
    with pytest.raises(ValueError, match="has to be between 0 and 1"):
        st.dropout_add(x, x, 1.5)


def test_channels_last_is_not_copied_for_channels():
    x = torch.randn(8, 16, 32, 32).to(memory_format=torch.channels_last)
    contiguous = torch.Tensor.contiguous
    try:
        torch.Tensor.contiguous = None
        st.dropout2d(x, 0.5)
    finally:
        torch.Tensor.contiguous = contiguous


def test_p_that_is_no_probability_is_refused():
    for p in (-0.1, 1.1, float("nan")):
        for call in (st.Dropout, lambda p: st.dropout(torch.ones(3), p)):
            with pytest.raises(ValueError, match="has to be between 0 and 1"):
                call(p)
    layer = st.Dropout(0.5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        layer.p = 2.0
    assert layer.p == 0.5


def test_keys_that_are_none_are_refused():
    x = torch.ones(3)
    for key in ((-1, 0), (0, 2**64)):
        with pytest.raises(ValueError, match="from 0 to"):
            st.dropout(x, 0.5, key=key)
    for key in (torch.ones(2), torch.ones(3, dtype=torch.int64)):
        with pytest.raises(ValueError, match="tensor of two int64"):
            st.dropout(x, 0.5, key=key)


MODULES = [
    (st.Dropout, nn.Dropout, (3, 4)),
    (st.Dropout1d, nn.Dropout1d, (5, 3, 4)),
    (st.Dropout1d, nn.Dropout1d, (3, 4)),
    (st.Dropout2d, nn.Dropout2d, (5, 3, 4, 2)),
    (st.Dropout3d, nn.Dropout3d, (5, 3, 4, 2, 2)),
    (st.Dropout3d, nn.Dropout3d, (3, 4, 2, 2)),
    (st.AlphaDropout, nn.AlphaDropout, (3, 4)),
    (st.FeatureAlphaDropout, nn.FeatureAlphaDropout, (5, 3, 4)),
    (st.DropPath, None, (5, 3)),
    (st.LockedDropout, None, (5, 3)),
]


@pytest.mark.parametrize(("ours", "theirs", "shape"), MODULES)
def test_modules_are_those_of_pytorch(ours, theirs, shape):
    layer = ours(0.25)
    assert layer.p == 0.25
    assert layer.training
    assert not layer.inplace
    x = torch.randn(shape)
    assert layer.eval()(x) is x
    layer.train()
    assert not torch.equal(layer(x.new_ones(shape).expand(shape)), x)
    assert (layer(x) != layer(x)).any() or (layer(x) != layer(x)).any()
    assert ours(0.0)(x) is x
    if theirs is None:
        return
    assert isinstance(layer, theirs)
    assert repr(layer) == repr(theirs(0.25))
    assert repr(ours(0.5, True)) == repr(theirs(0.5, True))
    # The same means and variances, and whole channels.
    x = torch.ones(20_000, *shape[1:]) if len(shape) > 2 or theirs is nn.Dropout else x
    if x.shape[0] == 20_000:
        a, b = ours(0.25)(x), theirs(0.25)(x)
        assert abs(a.mean() - b.mean()) < 0.05
        assert abs(a.std() - b.std()) < 0.05
        if "d" in repr(layer).split("(")[0][-2:] and x.dim() > 2:
            flat = a.flatten(2)
            assert (flat == flat[:, :, :1]).all()


def test_a_locked_dropout_shares_the_steps_of_samples_of_sequences():
    x = torch.ones(3, 6, 50)
    for y in (st.LockedDropout(0.5)(x), st.locked_dropout(x, 0.5)):
        assert (y == y[:, :1]).all()
        assert (y[0] != y[1]).any()
    y = st.LockedDropout(0.5, time_axis=0)(x)
    assert (y == y[:1]).all()
    assert (y[:, 0] != y[:, 1]).any()


def test_what_is_no_tensor_key_or_generator_is_told():
    x = torch.ones(3)
    for call in (st.dropout, st.alpha_dropout, st.dropout2d, st.drop_path, st.locked_dropout):
        with pytest.raises(TypeError, match="input: expected a torch.Tensor, got numpy.ndarray"):
            call(x.numpy(), 0.5)
    with pytest.raises(TypeError, match="residual: expected a torch.Tensor, got builtins.float"):
        st.drop_path_add(x, 0.1)
    with pytest.raises(TypeError, match="key: expected a seed and an offset, got 5"):
        st.dropout(x, 0.5, key=5)
    with pytest.raises(ValueError, match="expected a key or a generator, got both"):
        st.dropout(x, 0.5, key=(1, 2), generator=torch.Generator())
    with pytest.raises(TypeError, match="generator: expected a torch.Generator, got builtins.int"):
        st.Dropout(0.5, generator=42)


def test_shapes_that_do_not_fit_are_told_as_pytorch_tells():
    with pytest.raises(RuntimeError, match="Expected 2D or 3D input"):
        st.dropout1d(torch.ones(3), 0.5)
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        st.FeatureAlphaDropout()(torch.ones(3))
    with pytest.warns(UserWarning, match="deprecated"):
        st.dropout2d(torch.ones(3, 2), 0.5)
    with pytest.raises(IndexError, match="time_axis"):
        st.LockedDropout(time_axis=2)(torch.ones(3, 2))
    with pytest.raises(ValueError, match="mode"):
        st.DropPath(mode="column")
    with pytest.raises(ValueError, match="save_mask"):
        st.Dropout(save_mask="all")


def test_shards_are_parts_of_the_one_mask():
    x = torch.ones(6, 4, 5)
    for function in (st.dropout, st.drop_path, st.locked_dropout, st.dropout1d):
        whole = function(x, 0.5, key=(7, 8))
        for axis in range(3):
            for start, stop in ((0, 2), (2, 4), (3, 4)):
                shard = sorix.Shard(x.shape, axis, start, stop)
                part = x.narrow(axis, start, stop - start).clone().requires_grad_()
                if function is st.dropout:
                    added = st.dropout_add(part, 3 * part, 0.5, key=(7, 8), shard=shard)
                    same(added.detach(), 3 + whole.narrow(axis, start, stop - start))
                y = function(part, 0.5, key=(7, 8), shard=shard)
                same(y, whole.narrow(axis, start, stop - start))
                y.sum().backward()
                same(part.grad, y.detach())
    with pytest.raises(ValueError, match="expected a part of shape"):
        st.dropout(x, 0.5, shard=sorix.Shard((6, 8, 5), 1, 0, 3))


def test_writing_in_place_is_told_to_autograd():
    x = torch.randn(5, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        st.dropout(x, 0.5, inplace=True)
    same(x.detach(), x.detach().clone())
    y = x * 1.0
    z = st.dropout(y, 0.5, inplace=True, key=(1, 1))
    assert z is y
    z.sum().backward()
    keep = torch.from_numpy(sorix.mask(5, 0.5, 1, 1))
    same(x.grad, torch.where(keep, 2.0, 0.0))
    # A tensor that was saved and has been written since is found out.
    y = torch.exp(x)
    st.dropout(y.detach(), 0.5, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    with pytest.raises(RuntimeError):
        st.dropout(torch.ones(3, 1).expand(3, 4), 0.5, inplace=True)


def test_large_tensors_are_the_same_on_every_number_of_threads():
    threads = torch.get_num_threads()
    x = torch.randn(9_000_000)
    try:
        outputs = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outputs.append(st.dropout(x, 0.1, key=(3, 4)))
    finally:
        torch.set_num_threads(threads)
    same(outputs[0], outputs[1])
    same(outputs[0], outputs[2])
