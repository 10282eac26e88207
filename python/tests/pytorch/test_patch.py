"""sorix under the operations of programs that never heard of it."""

import pytest
import sorix
import sorix.torch as st
import torch
import torch.nn.functional as F
from sorix.torch import _attention, _ops
from torch import nn


@pytest.fixture
def calls(monkeypatch):
    """How often a kernel of sorix was called."""
    seen = []
    draw, attention = _ops._draw, _attention._attention
    monkeypatch.setattr(_ops, "_draw", lambda *args: seen.append(args[3]) or draw(*args))
    monkeypatch.setattr(
        _attention, "_attention", lambda *args: seen.append(args[2].p) or attention(*args)
    )
    return seen


def q(*shape):
    return torch.randn(*shape, requires_grad=True)


PROGRAMS = {
    "nn.Dropout": (lambda: nn.Dropout(0.5)(q(8)), 1),
    "F.dropout": (lambda: F.dropout(q(8), 0.5), 1),
    "no gradient": (lambda: F.dropout(torch.ones(8), 0.5), 1),
    "in place": (lambda: F.dropout(q(8) * 2, 0.5, inplace=True), 1),
    "nn.Dropout1d": (lambda: nn.Dropout1d(0.5)(q(2, 3, 4)), 1),
    "nn.Dropout2d": (lambda: nn.Dropout2d(0.5)(q(2, 3, 4, 4)), 1),
    "nn.Dropout3d in place": (lambda: nn.Dropout3d(0.5, True)(torch.ones(2, 3, 4, 4, 4)), 1),
    "nn.AlphaDropout": (lambda: nn.AlphaDropout(0.5)(q(8)), 1),
    "nn.AlphaDropout in place": (lambda: nn.AlphaDropout(0.5, True)(torch.ones(8)), 1),
    "nn.FeatureAlphaDropout": (lambda: nn.FeatureAlphaDropout(0.5)(q(2, 3, 4)), 1),
    "native_dropout": (lambda: torch.native_dropout(q(8), 0.5, True)[0], 1),
    "attention": (lambda: F.scaled_dot_product_attention(*[q(1, 2, 8, 4)] * 3, dropout_p=0.5), 1),
    "nn.MultiheadAttention": (
        lambda: nn.MultiheadAttention(8, 2, dropout=0.5)(*[q(5, 2, 8)] * 3)[0],
        1,
    ),
    "nn.LSTM": (lambda: nn.LSTM(4, 4, num_layers=3, dropout=0.5)(q(5, 2, 4))[0], 2),
    "nn.TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(8, 2, dropout=0.5)(q(5, 2, 8)),
        4,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_reaches(name, calls):
    program, count = PROGRAMS[name]
    program()
    assert calls == []
    with st.patch():
        y = program()
        assert calls == [0.5] * count
        if y.requires_grad:
            y.sum().backward()
    del calls[:]
    program()
    assert calls == []


def test_it_reaches_inference_mode(calls):
    with st.patch(), torch.inference_mode():
        F.dropout(torch.ones(8), 0.5)
        F.dropout(torch.ones(8), 0.5, inplace=True)
    assert calls == [0.5] * 2


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_it_reaches_compiled_graphs(backend, calls):
    torch._dynamo.reset()
    with st.patch():
        model = torch.compile(
            nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), backend=backend, fullgraph=True
        )
        outputs = [model(torch.ones(64, 4)) for _ in range(3)]
        outputs[0].sum().backward()
    assert calls.count(0.5) >= 3
    assert len({tuple((y == 0).flatten().tolist()) for y in outputs}) == 3
    torch._dynamo.reset()


def test_the_gradient_is_that_of_the_mask():
    x = torch.randn(1000, requires_grad=True)
    with st.patch():
        torch.manual_seed(4)
        y = F.dropout(x, 0.25)
        torch.manual_seed(4)
        assert torch.equal(st.dropout(x, 0.25), y)
    y.sum().backward()
    scale = torch.tensor(1 / 0.75)
    assert torch.equal(x.grad, torch.where(y == 0, 0.0, scale))
    assert abs(y.eq(0).float().mean() - 0.25) < 0.05


def test_native_dropout_gives_its_mask():
    x = torch.randn(40, 50)
    with st.patch():
        y, mask = torch.native_dropout(x, 0.25, True)
        assert mask.dtype == torch.bool
        assert torch.equal(y, torch.where(mask, x * torch.tensor(1 / 0.75), 0.0))
        for train in (False, None):
            y, mask = torch.native_dropout(x, 0.25, train)
            assert bool(mask.all()) is (train is False)
        y, mask = torch.native_dropout(torch.ones(3, dtype=torch.complex64), 0.5, True)
        assert y.dtype == torch.complex64


def test_what_it_does_not_take_is_as_it_was(calls):
    def program():
        torch.manual_seed(1)
        outputs = [
            F.dropout(torch.ones(8, dtype=torch.complex64), 0.5),
            torch.func.vmap(nn.Dropout(0.5), randomness="different")(torch.ones(3, 8)),
            F.dropout(torch.ones(8), 0.0),
            nn.Dropout(0.5).eval()(torch.ones(8)),
        ]
        F.dropout(torch.ones(8, device="meta"), 0.5)
        return outputs

    expected = program()
    with st.patch():
        for a, b in zip(program(), expected, strict=True):
            assert torch.equal(a, b)
        for p in (-0.5, 1.5):
            with pytest.raises(RuntimeError, match="between 0 and 1"):
                torch.dropout(torch.ones(3), p, True)
        with pytest.raises(RuntimeError, match="at least 2 dimensions"):
            torch.feature_dropout(torch.ones(3), 0.5, True)
        x = torch.ones(8)
        assert F.dropout(x, 0.5, training=False) is x
        y = torch.randn(3, requires_grad=True)
        with pytest.raises(RuntimeError, match="leaf Variable"):
            F.dropout(y, 0.5, inplace=True)
    # That one drew a mask before PyTorch refused to write.
    assert calls == [0.5]
    assert torch.equal(y.detach(), y.detach().clone())


def test_it_ends_and_leaves_nothing():
    def plain():
        torch.manual_seed(9)
        x = torch.randn(50, requires_grad=True)
        y = F.dropout(x, 0.5)
        y.sum().backward()
        return y.detach(), x.grad, type(y.grad_fn).__name__

    before = plain()
    kernels = torch._C._dispatch_dump("aten::dropout")
    st.patch()
    st.patch()
    assert st.is_patched()
    assert plain()[2] != before[2]
    with st.patch():
        pass
    # One within another changes nothing.
    assert st.is_patched()
    st.unpatch()
    st.unpatch()
    assert not st.is_patched()
    assert torch._C._dispatch_dump("aten::dropout") == kernels
    for a, b in zip(plain(), before, strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    with pytest.raises(ZeroDivisionError), st.patch():
        1 / 0  # noqa: B018
    assert not st.is_patched()


def train(steps=25):
    """A small network's losses."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 64),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.TransformerEncoderLayer(64, 4, dropout=0.1),
        nn.Linear(64, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x = torch.randn(16, 32, 4)
    y = x.sum(-1, keepdim=True)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_network_learns_alike_on_one_and_on_two_threads():
    threads = torch.get_num_threads()
    try:
        with st.patch():
            torch.set_num_threads(1)
            one = train()
            assert train() == one
            torch.set_num_threads(2)
            two = train()
    finally:
        torch.set_num_threads(threads)
    # The masks are the same; PyTorch's own sums may be in another order.
    assert two == pytest.approx(one, rel=1e-4)
    assert one[-1] < 0.7 * one[0]
    assert sorix.get_num_threads() >= 1
