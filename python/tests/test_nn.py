"""Modules, losses, optimisers and files."""

import copy
import pickle

import numpy as np
import pytest
import sorix
from sorix import nn, tensor


class Net(nn.Module):
    def __init__(self, seed=1):
        generator = sorix.Generator(seed)
        self.scale = nn.Parameter(sorix.ones(3))
        self.layers = [nn.Linear(3, 4, generator=generator), nn.Dropout(0.5)]
        self.heads = {"a": nn.Linear(4, 2, bias=False, generator=generator)}
        self.number = 3
        self.constant = sorix.ones(3)

    def forward(self, x):
        x = x * self.scale
        for layer in self.layers:
            x = layer(x)
        return self.heads["a"](x)


def test_children_and_parameters_are_attributes():
    net = Net()
    names = ["scale", "layers.0.weight", "layers.0.bias", "heads.a.weight"]
    assert [name for name, _ in net.named_parameters()] == names
    assert list(net.state_dict()) == names
    assert len(net.parameters()) == 4
    children = ["layers.0", "layers.1", "heads.a"]
    assert [name for name, _ in net.named_children()] == children
    assert [name for name, _ in net.named_modules()] == ["", *children]
    net.heads["b"] = net.heads["a"]
    assert len(net.parameters()) == 4
    assert len(net.state_dict()) == 5
    assert "(layers.1): Dropout(p=0.5)" in repr(net)
    with pytest.raises(NotImplementedError, match="Empty"):
        type("Empty", (nn.Module,), {})()(1)


def test_modes_reach_all_below():
    net = Net()
    assert net.training
    assert net.eval() is net
    assert not net.layers[1].training
    x = sorix.ones((8, 3))
    np.testing.assert_array_equal(net(x).data, net(x).data)
    net.train()
    assert net.layers[1].training
    assert (net(x).data != net(x).data).any()


def test_a_network_learns():
    sorix.manual_seed(3)
    generator = sorix.Generator(1)
    x = sorix.randn((64, 3), generator=generator)
    target = (x * tensor([1.0, -2.0, 0.5], dtype="float32")).sum(axis=1, keepdims=True)
    for make in (
        lambda p: nn.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
        lambda p: nn.Adam(p, 0.05),
        lambda p: nn.AdamW(list(p.parameters()), 0.05),
    ):
        net = nn.Sequential(
            nn.Linear(3, 32, generator=generator),
            nn.LayerNorm(32),
            nn.GELU(),
            nn.Dropout(0.1),
            nn.Linear(32, 1, generator=generator),
        )
        optimizer = make(net)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = nn.mse_loss(net(x), target)
            loss.backward()
            nn.clip_grad_norm(net, 10.0)
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.1 * losses[0], losses


def test_a_run_that_was_saved_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "run.safetensors"
    x, y = sorix.ones((4, 3)), sorix.zeros((4, 2))

    def steps(net, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            nn.mse_loss(net(x), y).backward()
            optimizer.step()

    generator = sorix.Generator(5)
    net = Net()
    net.layers[1].generator = generator
    optimizer = nn.Adam(net, 0.1)
    steps(net, optimizer, 3)
    nn.save(
        path,
        net,
        optimizer=optimizer,
        generators={"dropout": generator},
        counters={"step": 3},
    )
    steps(net, optimizer, 3)

    generator = sorix.Generator(0)
    again = Net(seed=2)
    again.layers[1].generator = generator
    optimizer = nn.Adam(again, 0.5)
    counters = nn.load(
        path,
        again,
        optimizer=optimizer,
        generators={"dropout": generator},
        counters=["step"],
    )
    assert counters == {"step": 3}
    assert optimizer.lr == 0.1
    steps(again, optimizer, 3)
    for name, parameter in net.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name].data, parameter.data)


def test_parameters_alone_are_a_file_that_others_read(tmp_path):
    path = tmp_path / "net.safetensors"
    net = Net()
    nn.save(path, net)
    safetensors = pytest.importorskip("safetensors.numpy")
    arrays = safetensors.load_file(path)
    assert set(arrays) == set(net.state_dict())
    np.testing.assert_array_equal(arrays["layers.0.weight"], net.layers[0].weight.data)
    safetensors.save_file(arrays, path)
    again = Net(seed=2)
    assert nn.load(path, again) == {}
    np.testing.assert_array_equal(again.layers[0].weight.data, net.layers[0].weight.data)
    with pytest.raises(OSError, match="missing"):
        nn.load(tmp_path / "missing", net)
    with pytest.raises(ValueError, match='there is no "weight"'):
        nn.load(path, nn.Linear(3, 4))


def test_state_dicts():
    net, other = Net(), Net(seed=2)
    other.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(other.heads["a"].weight.data, net.heads["a"].weight.data)
    arrays = {name: x.data for name, x in net.state_dict().items()}
    other.load_state_dict(arrays)
    del arrays["scale"]
    with pytest.raises(KeyError, match="scale"):
        other.load_state_dict(arrays)
    other.load_state_dict(arrays, strict=False)
    before = net.scale.tolist()
    bad = dict(net.state_dict(), scale=sorix.zeros(3))
    bad["heads.a.weight"] = sorix.zeros((3, 3))
    with pytest.raises(ValueError, match=r"'heads.a.weight': expected shape \(2, 4\)"):
        net.load_state_dict(bad)
    bad["heads.a.weight"] = sorix.zeros((2, 4), dtype="float64")
    with pytest.raises(TypeError, match="float32"):
        net.load_state_dict(bad)
    assert net.scale.tolist() == before


def test_optimisers_keep_their_state():
    x = nn.Parameter(tensor([1.0, 2.0]))
    adam = nn.Adam([x], lr=0.1)
    (x * x).sum().backward()
    adam.step()
    state = adam.state_dict()
    assert state["state"]["0"]["steps"] == 1
    other = nn.Adam([("0", x)], lr=0.5)
    other.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert other.lr == 0.1
    other.lr = 0.2
    assert other.lr == 0.2
    with pytest.raises(ValueError, match="at least one parameter"):
        nn.SGD([])
    with pytest.raises(ValueError):
        nn.SGD([x], lr=-1.0)
    x.requires_grad = False
    before = x.tolist()
    adam.step()
    assert x.tolist() == before


def test_modules_pickle_and_copy():
    net = Net()
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert isinstance(other.scale, nn.Parameter)
        assert other.scale.requires_grad
        np.testing.assert_array_equal(other.layers[0].weight.data, net.layers[0].weight.data)
        assert other.layers[0].weight is not net.layers[0].weight


FORMS = [
    (nn.Dropout(0.5), (6, 4)),
    (nn.Dropout1d(0.5), (4, 3, 5)),
    (nn.Dropout2d(0.5), (4, 3, 5, 2)),
    (nn.Dropout2d(0.5, channels_last=True), (4, 5, 2, 3)),
    (nn.Dropout3d(0.5), (4, 3, 5, 2, 2)),
    (nn.AlphaDropout(0.5), (6, 4)),
    (nn.FeatureAlphaDropout(0.5), (4, 6, 5)),
    (nn.GaussianDropout(0.5), (6, 4)),
    (nn.DropPath(0.5), (16, 4)),
    (nn.DropPath(0.5, scale_by_keep=False, per_batch=True), (6, 4)),
    (nn.LockedDropout(0.5, time_axis=1), (6, 4, 3)),
    (nn.BroadcastDropout(0.5, shared_axes=[1]), (16, 4)),
    (nn.BroadcastDropout(0.5, noise_shape=[None, 1]), (16, 4)),
    (nn.DropBlock2d(0.2, 2), (2, 3, 8, 8)),
]


@pytest.mark.parametrize(
    ("layer", "shape"), FORMS, ids=lambda v: type(v).__name__ if callable(v) else ""
)
def test_every_dropout_is_named_by_its_key(layer, shape):
    x = sorix.ones(shape)
    layer.generator = sorix.Generator(42)
    layer.train()
    first = layer(x)
    assert layer.generator.offset == 1
    np.testing.assert_array_equal(layer(x, key=(42, 0)).data, first.data)
    assert layer.generator.offset == 1
    layer.save_mask = "key"
    for key in ((42, 0), (42, 1)):
        saved = tensor(np.ones(shape, np.float32), requires_grad=True)
        layer(saved, key=key).sum().backward()
        layer.save_mask = "bits"
        other = tensor(np.ones(shape, np.float32), requires_grad=True)
        layer(other, key=key).sum().backward()
        np.testing.assert_array_equal(saved.grad.data, other.grad.data)
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, x.data)
    assert layer.generator.offset == 1
    again = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(again(x, key=(42, 0)).data, first.data)


def test_forms_share_what_they_should():
    x = sorix.ones((5, 6, 7), dtype="float64")
    key = (1, 2)
    y = nn.Dropout1d(0.5)(x, key=key).data
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :, :1], y.shape))
    np.testing.assert_array_equal(y[:, :, 0] != 0, sorix.mask((5, 6), 0.5, *key))
    y = nn.DropPath(0.5)(x, key=key).data
    np.testing.assert_array_equal(y[:, 0, 0] != 0, sorix.mask(5, 0.5, *key))
    y = nn.Dropout(0.5)(x, key=key).data
    np.testing.assert_array_equal(y, sorix.dropout(np.ones((5, 6, 7)), 0.5, seed=1, offset=2))
    shard = sorix.Shard((5, 6, 7), 1, 2, 4)
    part = nn.Dropout(0.5)(x[:, 2:4], key=key, shard=shard).data
    np.testing.assert_array_equal(part, y[:, 2:4])
    with pytest.raises(ValueError, match="Dropout2d"):
        nn.Dropout2d(0.5)(sorix.ones(3))
    with pytest.raises(ValueError, match="noise_shape or shared_axes"):
        nn.BroadcastDropout(0.5)
    with pytest.raises(ValueError, match="save_mask"):
        nn.Dropout(0.5, save_mask="all")
    layer = nn.Dropout(0.5)
    with pytest.raises(ValueError, match="probability"):
        layer.p = 2.0
    assert layer.p == 0.5


def test_layers_that_drop_parameters():
    linear = nn.Linear(64, 2, bias=False)
    layer = nn.WeightDropout(linear, 0.5, generator=sorix.Generator(1))
    y = layer(sorix.ones((2, 64))).data
    np.testing.assert_array_equal(y[0], y[1])
    np.testing.assert_allclose(
        layer.eval()(sorix.ones((2, 64))).data, linear(sorix.ones((2, 64))).data
    )
    table = nn.Embedding(10, 4)
    layer = nn.EmbeddingDropout(table, 0.5, generator=sorix.Generator(1))
    rows = layer(np.arange(10)).data
    assert {bool((row == 0).all()) for row in rows} == {True, False}
    np.testing.assert_array_equal(layer.eval()([3, 3]).data, table([3, 3]).data)
    with pytest.raises(IndexError, match="0..10"):
        table([10])


def test_losses_are_those_of_their_formulas():
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    x = tensor(logits, requires_grad=True)
    assert nn.cross_entropy(x, [1, 2]).item() == pytest.approx(-(log_p[0, 1] + log_p[1, 2]) / 2)
    assert nn.cross_entropy(x, np.array([1, -100]), reduction="sum").item() == pytest.approx(
        -log_p[0, 1]
    )
    weighted = nn.CrossEntropyLoss(weight=tensor([1.0, 2.0, 3.0]), reduction="none")
    np.testing.assert_allclose(weighted(x, [1, 2]).data, [-2 * log_p[0, 1], -3 * log_p[1, 2]])
    nn.cross_entropy(x, [1, 2], reduction="sum").backward()
    np.testing.assert_allclose(x.grad.data, np.exp(log_p) - [[0, 1, 0], [0, 0, 1]])
    target = tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0]])
    sigmoid = 1 / (1 + np.exp(-logits))
    expected = -(target.data * np.log(sigmoid) + (1 - target.data) * np.log(1 - sigmoid))
    np.testing.assert_allclose(nn.BCEWithLogitsLoss("none")(x, target).data, expected)
    assert nn.MSELoss("sum")(x, target).item() == pytest.approx(((logits - target.data) ** 2).sum())
    with pytest.raises(IndexError, match="3"):
        nn.cross_entropy(x, [1, 3])
    with pytest.raises(IndexError, match="-1"):
        nn.cross_entropy(x, [1, -1])
    with pytest.raises(TypeError, match="integers"):
        nn.cross_entropy(x, [1.0, 2.0])
    with pytest.raises(ValueError, match="reduction"):
        nn.mse_loss(x, target, reduction="max")


def test_clipping():
    x = nn.Parameter(tensor([3.0, 4.0]))
    (x * x).sum().backward()
    assert nn.clip_grad_norm([x], 1.0) == pytest.approx(10.0)
    np.testing.assert_allclose(x.grad.data, [0.6, 0.8])
    nn.clip_grad_value([x], 0.7)
    np.testing.assert_allclose(x.grad.data, [0.6, 0.7])


def test_monte_carlo_samples_depend_on_seed_and_number_alone():
    net = Net().eval()
    x = sorix.ones((16, 3))

    def sample(seed, number):
        return nn.monte_carlo(lambda: net(x), seed=seed, sample=number).tolist()

    assert sample(1, 0) == sample(1, 0)
    assert sample(1, 0) != sample(1, 1) != sample(2, 1)
    with pytest.raises(ZeroDivisionError):
        nn.monte_carlo(lambda: 1 / 0, seed=1)
    np.testing.assert_array_equal(net(x).data, net(x).data)
