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


class Headed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(2, 1, bias=False), nn.Dropout(0.5))
        self.lin = nn.Linear(1, 1)
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter(sorix.ones(1))


def test_a_derived_sequence_has_its_layers_and_its_attributes():
    net = Headed()
    assert [name for name, _ in net.named_children()] == ["0", "1", "lin", "drop"]
    names = ["scale", "0.weight", "lin.weight", "lin.bias"]
    assert [name for name, _ in net.named_parameters()] == names
    assert list(net.state_dict()) == names
    assert len(net.parameters()) == 4
    net.eval()
    assert not any(module.training for module in (net, net[0], net[1], net.lin, net.drop))
    net.load_state_dict(dict(net.state_dict(), **{"lin.bias": sorix.full(1, 3.0)}))
    assert net.lin.bias.tolist() == [3.0]
    assert len(net) == 2
    np.testing.assert_array_equal(net(sorix.ones(2)).data, net[0](sorix.ones(2)).data)
    net.append(nn.Linear(1, 1, bias=False))
    assert [name for name, _ in net.named_parameters()][2] == "2.weight"


def test_no_two_parameters_have_one_name(tmp_path):
    keys = nn.Module()
    keys.d = {1: nn.Parameter(sorix.ones(1)), "1": nn.Parameter(sorix.zeros(1))}
    places = nn.Module()
    places.a = [nn.Parameter(sorix.ones(1))]
    setattr(places, "a.0", nn.Parameter(sorix.zeros(1)))
    children = nn.Module()
    children.d = {1: nn.Linear(1, 1), "1": nn.Linear(1, 1)}
    layers = nn.Sequential(nn.Linear(1, 1))
    setattr(layers, "0", nn.Linear(1, 1))
    for module, name in (
        (keys, "d.1"),
        (places, "a.0"),
        (children, "d.1.weight"),
        (layers, "0.weight"),
    ):
        outer = nn.Module()
        outer.inner = module
        file = tmp_path / "net"
        for use in (
            lambda m: list(m.named_parameters()),
            lambda m: m.parameters(),
            lambda m: m.state_dict(),
            lambda m: m.load_state_dict({}, strict=False),
            lambda m: nn.SGD(m),
            lambda m, file=file: nn.save(file, m),
            lambda m, file=file: nn.load(file, m),
        ):
            with pytest.raises(ValueError, match=rf"two parameters named '{name}'"):
                use(module)
            with pytest.raises(ValueError, match=rf"two parameters named 'inner.{name}'"):
                use(outer)
        assert not file.exists()
    assert [keys.d[1].item(), keys.d["1"].item()] == [1.0, 0.0]


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


def test_a_state_dict_is_loaded_whole_or_not_at_all():
    net = nn.Module()
    net.a, net.b = nn.Parameter(sorix.zeros(2)), nn.Parameter(sorix.ones(2))
    # What comes is what was there before, although one is written after the other.
    net.load_state_dict({"a": net.b, "b": net.a})
    assert (net.a.tolist(), net.b.tolist()) == ([1.0, 1.0], [0.0, 0.0])
    net.c = nn.Parameter(sorix.ones(1).expand((2,)))
    values = {name: sorix.full(2, 7.0) for name in "abc"}
    with pytest.raises(ValueError, match="copy_parameters.*expanded"):
        net.load_state_dict(values)
    assert (net.a.tolist(), net.b.tolist(), net.c.tolist()) == ([1.0] * 2, [0.0] * 2, [1.0] * 2)


def tied(b=None):
    net = nn.Module()
    net.first = nn.Linear(2, 1, bias=False)
    net.a = nn.Linear(2, 2, bias=False)
    net.b = nn.Linear(2, 2, bias=False)
    net.b.weight = net.a.weight if b is None else b(net.a.weight)
    return net


@pytest.mark.parametrize("b", [None, nn.Parameter], ids=["one object", "one memory"])
def test_tied_parameters_agree_in_what_is_loaded(b, tmp_path):
    net = tied(b)
    before = net.first.weight.tolist(), net.a.weight.tolist()
    first, zeros, ones = sorix.full((1, 2), 9.0), sorix.zeros((2, 2)), sorix.ones((2, 2))
    apart = {"first.weight": first, "a.weight": zeros, "b.weight": ones}
    message = "'a.weight' and 'b.weight' are one tensor, and differ"
    in_file = '"a.weight" and "b.weight" are one, and differ'
    for strict in (True, False):
        with pytest.raises(ValueError, match=message):
            net.load_state_dict(apart, strict=strict)
        assert (net.first.weight.tolist(), net.a.weight.tolist()) == before
    # A file of the same is refused, too.
    other = tied(lambda w: nn.Parameter(w.clone()))
    other.load_state_dict(apart)
    assert other.a.weight.tolist() == zeros.tolist()
    nn.save(tmp_path / "apart", other)
    with pytest.raises(ValueError, match=in_file):
        nn.load(tmp_path / "apart", net)

    agreed = [[float("nan"), 1.0], [2.0, 3.0]]
    array = np.array(agreed, np.float32)
    # The second is not contiguous.
    second = tensor(np.ascontiguousarray(array.T)).T
    net.load_state_dict({"first.weight": first, "a.weight": array, "b.weight": second})
    for weight in (net.a.weight, net.b.weight):
        np.testing.assert_array_equal(weight.data, array)
    net.load_state_dict(net.state_dict())
    np.testing.assert_array_equal(net.b.weight.data, array)


@pytest.mark.parametrize("b", [None, nn.Parameter], ids=["one object", "one memory"])
def test_tied_parameters_load_by_one_of_their_names(b, tmp_path):
    first = sorix.full((1, 2), 9.0)
    for number, name in enumerate(["a", "b"]):
        once = nn.Module()
        once.first = nn.Linear(2, 1, bias=False)
        once.first.weight = nn.Parameter(first)
        setattr(once, name, nn.Linear(2, 2, bias=False))
        getattr(once, name).weight = nn.Parameter(sorix.full((2, 2), float(number)))
        by_dict, by_file = tied(b), tied(b)
        by_dict.load_state_dict(once.state_dict())
        nn.save(tmp_path / name, once)
        nn.load(tmp_path / name, by_file)
        for net in (by_dict, by_file):
            assert net.first.weight.tolist() == first.tolist()
            assert net.a.weight.tolist() == net.b.weight.tolist() == [[number] * 2] * 2
    with pytest.raises(KeyError, match=r"missing names \['a.weight'\], unexpected names \[\]"):
        tied(b).load_state_dict({"first.weight": first})
    # Tensors without elements are at no place, and so not at one.
    empty = nn.Module()
    empty.a, empty.b = nn.Parameter(sorix.ones(0)), nn.Parameter(sorix.ones(0))
    with pytest.raises(KeyError, match=r"missing names \['b'\]"):
        empty.load_state_dict({"a": sorix.ones(0)})


def test_a_generator_has_one_state_in_a_file(tmp_path):
    path = tmp_path / "run"
    net, generator = nn.Linear(1, 1), sorix.Generator(3, 4)
    nn.save(path, net, generators={"a": sorix.Generator(1, 5), "b": sorix.Generator(2, 6)})
    net.weight = nn.Parameter(sorix.full((1, 1), 7.0))
    # The generator of the process is one, whatever handle it has.
    default = sorix.default_generator
    for one in {"a": generator, "b": generator}, {"a": default(), "b": default()}:
        before = [g.get_state() for g in one.values()]
        with pytest.raises(
            ValueError, match='"a.generator" and "b.generator" are one, and differ in the file'
        ):
            nn.load(path, net, generators=one)
        assert [g.get_state() for g in one.values()] == before
        assert net.weight.item() == 7.0
    # Under several names it is saved, and comes back.
    again = {"a": generator, "b": generator}
    nn.save(tmp_path / "one", net, generators=again)
    generator.next_key()
    nn.load(tmp_path / "one", net, generators=again)
    assert generator.get_state() == (3, 4)
    # Two generators in one state are two.
    again = {"a": sorix.Generator(0), "b": sorix.Generator(0)}
    nn.load(path, net, generators=again)
    assert [g.get_state() for g in again.values()] == [(1, 5), (2, 6)]


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


def test_a_locked_dropout_shares_the_steps_of_samples_of_sequences():
    y = nn.LockedDropout(0.5)(sorix.ones((3, 6, 50))).data
    assert (y == y[:, :1]).all()
    assert (y[0] != y[1]).any()


def test_a_generator_is_one_of_sorix():
    for make in (nn.Dropout, nn.AlphaDropout, nn.LockedDropout):
        with pytest.raises(TypeError, match="generator: expected a sorix.Generator, got builtins"):
            make(0.5, generator=42)


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
    with pytest.raises(TypeError, match="integers"):
        nn.cross_entropy(x, [True, False])
    # As many, in another order of the axes.
    sequences = sorix.zeros((2, 5, 3))
    assert nn.cross_entropy(sequences, np.zeros((2, 3), int)).item() == pytest.approx(np.log(5))
    for shape in ((3, 2), (6,), (2, 5)):
        with pytest.raises(ValueError, match=r"target of shape \[2, 3\], .* got shape "):
            nn.cross_entropy(sequences, np.zeros(shape, int))
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


def test_truths_are_no_indices():
    x = tensor([1.0, 2.0, 3.0])
    for index in ([True, False, True], [np.True_, 1], np.array([True, False, True])):
        with pytest.raises(TypeError, match="expected an index"):
            x[index]
    with pytest.raises(TypeError, match="whole numbers"):
        x.index_select(0, [True, False])
    with pytest.raises(TypeError, match="got truths"):
        nn.embedding([True, False], sorix.ones((2, 3)))
    assert x[[2, -3]].tolist() == [3.0, 1.0]
    assert x.index_select(0, np.array([2, 0])).tolist() == [3.0, 1.0]
    with pytest.raises(ValueError, match="nesterov"):
        nn.SGD([("x", nn.Parameter(x))], 0.1, nesterov=True)
