"""Attention in several heads, and the layers of a transformer."""

import copy
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import sorix
from sorix import nn, tensor

HIDDEN = -math.inf
LAYERS = [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer]
ACTIVATIONS = ["relu", "gelu", "gelu_tanh", "silu"]


def randn(shape, seed=1, dtype="float64"):
    return sorix.randn(shape, dtype=dtype, generator=sorix.Generator(seed))


def layer_of(kind, p=0.5, seed=42, **options):
    """A small one, whose biases and norms show."""
    generator = sorix.Generator(seed)
    options = {"dtype": "float64", "generator": generator} | options
    layer = kind(8, 2, 12, p, **options)
    with sorix.no_grad():
        for index, (name, parameter) in enumerate(layer.named_parameters()):
            if name.endswith("bias") or "norm" in name:
                parameter.copy_(randn(parameter.shape, index, parameter.dtype))
    return layer


def call(layer, x, memory, **masks):
    if isinstance(layer, nn.TransformerDecoderLayer):
        return layer(x, memory, **{f"tgt_{name}": mask for name, mask in masks.items()})
    return layer(
        x, **{name if name == "is_causal" else f"src_{name}": m for name, m in masks.items()}
    )


def assert_near(found, expected):
    np.testing.assert_allclose(found.data, expected.data, rtol=0, atol=1e-12)


def seed_of(generator, *names):
    for name in names:
        generator = generator.fork(name)
    return {"seed": generator.seed}


# The layers in Rust, tested there by the same numbers.


def test_a_seed_is_the_same_layer_as_in_rust():
    """`crates/sorix-nn/tests/layers/transformer.rs` has these numbers."""
    x, memory = randn((2, 3, 4)), randn((2, 5, 4), 2)

    def near(y, expected):
        np.testing.assert_allclose(y.data.ravel()[[0, 5, 23]], expected, rtol=0, atol=1e-9)

    generator = sorix.Generator(42)
    layer = nn.MultiheadAttention(4, 2, 0.5, dtype="float64", generator=generator)
    assert generator.offset == 3
    near(layer(x, x, x)[0], [-0.437399838006, 0.363277423604, 0.139309355821])
    for norm_first, encoded, decoded in [
        (
            False,
            [-1.68166303395, -0.0907998929569, -0.627801693034],
            [-1.41247518435, -0.120759752455, -0.258971311423],
        ),
        (
            True,
            [-4.01211057088, -0.205980230545, -0.443643064368],
            [-3.15112429764, -0.205980230545, 0.51636305351],
        ),
    ]:
        options = {"norm_first": norm_first, "dtype": "float64"}
        generator = sorix.Generator(42)
        layer = nn.TransformerEncoderLayer(4, 2, 8, 0.5, "gelu", generator=generator, **options)
        assert generator.offset == 7
        near(layer(x, is_causal=True), encoded)
        generator = sorix.Generator(42)
        layer = nn.TransformerDecoderLayer(4, 2, 8, 0.5, "silu", generator=generator, **options)
        assert generator.offset == 10
        near(layer(x, memory, tgt_is_causal=True), decoded)


def test_a_file_of_pytorch_loads_and_gives_what_it_gave_there():
    """What `crates/sorix-nn/tests/data/torch_transformer.py` wrote, which says how it was made."""
    path = Path(__file__).parents[2] / "crates/sorix-nn/tests/data/torch_transformer.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is not here: not a checkout of the repository")
    file = nn.Module()
    file.encoder = nn.TransformerEncoderLayer(8, 2, 12, activation="gelu", norm_first=True)
    file.decoder = nn.TransformerDecoderLayer(8, 2, 12)
    file.x, file.memory, file.encoded, file.decoded = (
        nn.Parameter(sorix.zeros((2, length, 8))) for length in (5, 4, 5, 5)
    )
    nn.load(path, file)
    file.eval()
    padding = sorix.zeros((2, 5)).data.copy()
    padding[1, 3:] = HIDDEN
    encoded = file.encoder(file.x, src_key_padding_mask=tensor(padding))
    np.testing.assert_allclose(encoded.data, file.encoded.data, rtol=0, atol=2e-6)
    decoded = file.decoder(file.x, file.memory, tgt_is_causal=True)
    np.testing.assert_allclose(decoded.data, file.decoded.data, rtol=0, atol=2e-6)


# Against the operations that they are made of.


def by_operations(layer, query, key, value, attn_mask=None, is_causal=False, **dropout):
    """By one product for each projection, of inputs in batches."""
    width, heads = layer.embed_dim, layer.num_heads
    found = []
    for index, x in enumerate((query, key, value)):
        rows = slice(index * width, (index + 1) * width)
        bias = None if layer.in_proj_bias is None else layer.in_proj_bias[rows]
        x = nn.linear(x, layer.in_proj_weight[rows], bias)
        x = x.reshape(*x.shape[:2], heads, width // heads)
        found.append(x.transpose(1, 2))
    y = found[0].scaled_dot_product_attention(*found[1:], attn_mask, is_causal=is_causal, **dropout)
    return layer.out_proj(y.transpose(1, 2).reshape(*query.shape))


@pytest.mark.parametrize("bias", [True, False])
def test_attention_is_projections_and_scores_by_the_next_key(bias):
    generator = sorix.Generator(42)
    layer = nn.MultiheadAttention(8, 2, 0.3, bias, dtype="float64", generator=generator)
    if bias:
        assert not layer.in_proj_bias.data.any()
        assert not layer.out_proj.bias.data.any()
        with sorix.no_grad():
            layer.in_proj_bias.copy_(randn(24, 3))
            layer.out_proj.bias.copy_(randn(8, 4))
    else:
        assert list(layer.state_dict()) == ["in_proj_weight", "out_proj.weight"]
    x, key, value = randn((3, 5, 8)), randn((3, 7, 8), 2), randn((3, 7, 8), 3)
    seed = seed_of(generator, "dropout")
    for offset, inputs in enumerate([(x, x, x), (x, key, key), (x, key, value)]):
        expected = by_operations(layer, *inputs, dropout_p=0.3, offset=offset, **seed)
        assert layer.dropout.generator.offset == offset
        assert_near(layer(*inputs)[0], expected)
    assert layer.dropout.generator.offset == 3
    layer.dropout.p = 0.6
    expected = by_operations(layer, x, x, x, dropout_p=0.6, offset=3, **seed)
    assert_near(layer(x, x, x)[0], expected)
    layer.eval()
    assert_near(layer(x, key, value)[0], by_operations(layer, x, key, value))
    assert layer.dropout.generator.offset == 4
    # Whether it drops is said by the dropout.
    layer.dropout.train()
    y, _ = layer(x, x, x)
    assert_near(y, by_operations(layer, x, x, x, dropout_p=0.6, offset=4, **seed))
    layer.eval()
    # A network that drops at inference.
    draws = [nn.monte_carlo(lambda: layer(x, x, x)[0], seed=5, sample=i).data for i in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_masks_are_added_to_the_scores():
    layer = nn.MultiheadAttention(8, 2, generator=sorix.Generator(1), dtype="float64")
    x, key = randn((3, 5, 8)), randn((3, 7, 8), 2)
    padding = np.zeros((3, 7))
    padding[1, 4:] = HIDDEN
    padding[2, 0] = HIDDEN
    bias = randn((3, 2, 5, 7), 4)
    for mask in (bias, bias[0, 0], bias[:, :1]):
        for causal in (False, True):
            y, _ = layer(x, key, key, tensor(padding), mask, causal)
            added = tensor(padding).reshape(3, 1, 1, 7) + mask
            expected = by_operations(layer, x, key, key, added, causal)
            assert_near(y, expected)
    # By their names, and each alone.
    y, weights = layer(x, key, key, key_padding_mask=tensor(padding))
    assert weights is None
    assert_near(y[1], layer(x[1], key[1, :4], key[1, :4])[0])
    assert_near(y[2], layer(x[2], key[2, 1:], key[2, 1:])[0])
    # Without a batch.
    assert_near(y[2], layer(x[2], key[2], key[2], key_padding_mask=tensor(padding[2]))[0])
    # Who sees nothing gets the bias of the projection.
    y, _ = layer(x, key, key, attn_mask=sorix.full((5, 7), HIDDEN, dtype="float64"))
    assert not y.data.any()


def test_a_mask_of_bools_is_refused():
    layer = nn.MultiheadAttention(8, 2)
    x = sorix.ones((2, 3, 8))
    bools = np.array([[False, False, True], [False, True, True]])
    with pytest.raises(TypeError, match="key_padding_mask: expected a Tensor that is added to the"):
        layer(x, x, x, bools)
    with pytest.raises(TypeError, match="attn_mask: expected a Tensor .* got bool"):
        layer(x, x, x, None, False)
    encoder = nn.TransformerEncoderLayer(8, 2, 16).eval()
    with pytest.raises(TypeError, match="minus infinity where it does not, got ndarray"):
        encoder(x, src_key_padding_mask=bools)
    # As its documentation says.
    mask = sorix.zeros(bools.shape).masked_fill(tensor(bools, dtype="float32"), HIDDEN)
    assert mask.tolist() == [[0.0, 0.0, HIDDEN], [0.0, HIDDEN, HIDDEN]]
    encoder(x, src_key_padding_mask=mask)


class Apart:
    """A layer's parts one after another, by public operations of tensors and the keys that are due."""

    def __init__(self, layer, generator, offset):
        self.layer, self.generator, self.offset = layer, generator, offset

    def key(self, *names):
        seed = seed_of(self.generator, *names, "generator")
        return seed | {"offset": self.offset}

    def attention(self, name, query, memory, **options):
        module = getattr(self.layer, name)
        key = self.key(name, "dropout")
        p = module.dropout.p
        return by_operations(module, query, memory, memory, dropout_p=p, **key, **options)

    def add_norm(self, number, norm, x, residual):
        norm = getattr(self.layer, f"norm{norm}")
        p = getattr(self.layer, f"dropout{number}").p
        key = self.key(f"dropout{number}")
        options = {"weight": norm.weight, "shift": norm.bias, "eps": norm.eps}
        return x.dropout_add_norm(residual, p, **options, **key)

    def network(self, activation, x):
        layer, key = self.layer, self.key("dropout")
        x = layer.linear1(x).act_dropout(activation, layer.dropout.p, **key)
        return layer.linear2(x)

    def add(self, number, x, residual):
        p = getattr(self.layer, f"dropout{number}").p
        return x.dropout_add(residual, p, **self.key(f"dropout{number}"))

    def run(self, activation, x, memory):
        """As the papers have it; the self-attention is causal."""
        layer = self.layer
        sublayers = [lambda x: self.attention("self_attn", x, x, is_causal=True)]
        if memory is not None:
            sublayers.append(lambda x: self.attention("multihead_attn", x, memory))
        sublayers.append(lambda x: self.network(activation, x))
        last = len(sublayers)
        if not layer.norm_first:
            for number, sublayer in enumerate(sublayers, 1):
                x, _ = self.add_norm(number, number, sublayer(x), x)
            return x
        z = layer.norm1(x)
        for number, sublayer in enumerate(sublayers[:-1], 1):
            z, x = self.add_norm(number, number + 1, sublayer(z), x)
        return self.add(last, sublayers[-1](z), x)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_is_its_fused_parts_by_the_keys_of_their_names(kind, activation, norm_first):
    layer = layer_of(kind, activation=activation, norm_first=norm_first)
    # None takes the part of another.
    for index, module in enumerate(layer.modules()):
        if hasattr(module, "p"):
            module.p = 0.1 + index / 50
    x, memory = randn((3, 5, 8)), randn((3, 7, 8), 2)
    second = memory if kind is nn.TransformerDecoderLayer else None
    for offset in range(2):
        expected = Apart(layer, sorix.Generator(42), offset).run(activation, x, second)
        y = call(layer, x, memory, is_causal=True)
        np.testing.assert_array_equal(y.data, expected.data)
    generators = [module.generator for module in layer.modules() if hasattr(module, "p")]
    assert [generator.offset for generator in generators] == [2] * len(generators)
    assert len({generator.seed for generator in generators}) == len(generators)


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_in_use_a_layer_drops_nothing(kind, norm_first):
    layer = layer_of(kind, norm_first=norm_first).eval()
    without = layer_of(kind, 0.0, norm_first=norm_first)
    x, memory = randn((3, 5, 8)), randn((3, 7, 8), 2)
    y = call(layer, x, memory)
    np.testing.assert_array_equal(y.data, call(without, x, memory).data)
    # Without a batch.
    assert_near(call(layer, x[1], memory[1]), y[1])
    layer.train()
    assert (call(layer, x, memory).data != y.data).any()


def test_each_mask_of_a_decoder_goes_where_its_name_says():
    layer = layer_of(nn.TransformerDecoderLayer).eval()
    x, memory = randn((2, 5, 8)), randn((2, 7, 8), 2)
    padding = tensor(np.where(np.arange(5) < 3, 0.0, HIDDEN)[None].repeat(2, 0))
    y = layer(x, memory, tgt_key_padding_mask=padding)
    assert_near(y[:, :3], layer(x[:, :3], memory))
    padding = tensor(np.where(np.arange(7) < 4, 0.0, HIDDEN)[None].repeat(2, 0))
    expected = layer(x, memory[:, :4])
    assert_near(layer(x, memory, memory_key_padding_mask=padding), expected)
    assert_near(layer(x, memory, memory_mask=padding[:1]), expected)
    causal = tensor(np.where(np.tri(5, dtype=bool), 0.0, HIDDEN))
    assert_near(layer(x, memory, causal), layer(x, memory, tgt_is_causal=True))
    first = layer(x[:, :1], memory[:, :1])
    assert_near(layer(x, memory, tgt_is_causal=True, memory_is_causal=True)[:, :1], first)


# Gradients, and what a training needs.


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_gradients_are_those_of_finite_differences(kind, norm_first):
    leaves = [randn((2, 3, 8)), randn((2, 4, 8), 2)]
    direction = randn((2, 3, 8), 3)
    padding = tensor([[0.0, 0.0, 0.0], [0.0, 0.0, HIDDEN]])

    def loss(layer):
        # The same masks each time.
        for module in layer.modules():
            if hasattr(module, "p"):
                module.generator.set_state((module.generator.seed, 0))
        masks = {"key_padding_mask": padding, "is_causal": True}
        return (call(layer, *leaves, **masks) * direction).sum()

    layer = layer_of(kind, 0.3, activation="gelu", norm_first=norm_first)
    leaves = [x.requires_grad_() for x in leaves]
    loss(layer).backward()
    tensors = dict(layer.named_parameters()) | {"x": leaves[0]}
    if kind is nn.TransformerDecoderLayer:
        tensors["memory"] = leaves[1]
    for index, (name, x) in enumerate(tensors.items()):
        towards = randn(x.shape, 100 + index)
        sides = []
        with sorix.no_grad():
            before = x.clone()
            for step in (1e-6, -1e-6):
                x.copy_(before + towards * step)
                sides.append(loss(layer).item())
            x.copy_(before)
        expected = (sides[0] - sides[1]) / 2e-6
        found = (x.grad * towards).sum().item()
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6), name


def test_what_is_frozen_gets_no_gradient():
    layer = layer_of(nn.TransformerEncoderLayer).requires_grad_(False)
    x = randn((2, 3, 8))
    assert not layer(x).requires_grad
    layer.linear1.weight.requires_grad = True
    layer(x).sum().backward()
    assert {name for name, y in layer.named_parameters() if y.grad is not None} == {
        "linear1.weight"
    }
    # Also what never gathered one.
    for module in (layer, layer.self_attn, layer.self_attn.out_proj, layer.norm1):
        for name, parameter in vars(module).items():
            if isinstance(parameter, nn.Parameter):
                setattr(module, name, nn.Parameter(parameter, requires_grad=False))
    assert not layer.self_attn(x, x, x)[0].requires_grad
    assert not layer.norm1(x).requires_grad


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_layer_learns(norm_first):
    """That each position is to tell what stood in the first."""
    generator = sorix.Generator(7)
    layer = nn.TransformerEncoderLayer(8, 2, 32, 0.05, norm_first=norm_first, generator=generator)
    out = nn.Linear(8, 1, generator=generator)
    model = nn.Sequential(layer, out)
    x = sorix.randn((32, 6, 8), generator=generator)
    target = x[:, :1, :1].expand(32, 6, 1)
    optimizer = nn.Adam(model, lr=5e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = nn.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < 0.5 * losses[0], (losses[0], losses[-10:])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_seed_is_the_same_masks_in_every_dtype(kind, norm_first, dtype):
    wide = layer_of(kind, norm_first=norm_first)
    layer = layer_of(kind, norm_first=norm_first, dtype=dtype)
    layer.load_state_dict({name: x.to(dtype) for name, x in wide.state_dict().items()})
    x, memory = randn((3, 5, 8), dtype=dtype), randn((3, 7, 8), 2, dtype)
    y = call(layer, x, memory)
    assert y.dtype.name == dtype
    expected = call(wide, x.to("float64"), memory.to("float64"))
    close = 3e-2 if dtype == "float16" else 2e-5
    np.testing.assert_allclose(y.data, expected.data, rtol=0, atol=close)


# As the other modules.


def test_parameters_have_the_names_and_shapes_of_pytorch():
    def attention(name):
        return {
            f"{name}in_proj_weight": (12, 4),
            f"{name}in_proj_bias": (12,),
            f"{name}out_proj.weight": (4, 4),
            f"{name}out_proj.bias": (4,),
        }

    def others(norms):
        network = {
            "linear1.weight": (6, 4),
            "linear1.bias": (6,),
            "linear2.weight": (4, 6),
            "linear2.bias": (4,),
        }
        names = (f"norm{i}.{name}" for i in range(1, norms + 1) for name in ("weight", "bias"))
        return network | dict.fromkeys(names, (4,))

    def shapes(layer):
        return [(name, x.shape) for name, x in layer.state_dict().items()]

    assert shapes(nn.MultiheadAttention(4, 2)) == list(attention("").items())
    expected = attention("self_attn.") | others(2)
    assert shapes(nn.TransformerEncoderLayer(4, 2, 6)) == list(expected.items())
    expected = attention("self_attn.") | attention("multihead_attn.") | others(3)
    assert shapes(nn.TransformerDecoderLayer(4, 2, 6)) == list(expected.items())
    assert nn.TransformerEncoderLayer(4, 2).linear1.out_features == 2048
    assert nn.TransformerEncoderLayer(4, 2).dropout1.p == 0.1


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_copy_pickle_and_are_shown(kind):
    x, memory = randn((3, 5, 8)), randn((3, 7, 8), 2)
    layer = layer_of(kind, activation="gelu_tanh", norm_first=True)
    state = {name: x.data for name, x in layer.state_dict().items()}
    other = layer_of(kind, activation="gelu_tanh", norm_first=True, seed=5)
    other.load_state_dict(state)
    for module, again in zip(layer.modules(), other.modules(), strict=True):
        if hasattr(module, "p"):
            again.generator = module.generator.fork("x")
            module.generator = module.generator.fork("x")
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other]
    expected = call(layer, x, memory, is_causal=True)
    for again in copies:
        y = call(again, x, memory, is_causal=True)
        np.testing.assert_array_equal(y.data, expected.data)
        assert again.linear1.weight is not layer.linear1.weight
    text = repr(layer)
    assert text.startswith(f"{kind.__name__}(\n  (self_attn): MultiheadAttention(\n")
    assert "  (dropout): GELUDropout(p=0.5, approximate='tanh')\n" in text
    assert "    (dropout): Dropout(p=0.5)\n" in text


def test_a_class_of_a_layer_has_what_the_layer_has():
    class Scaled(nn.TransformerEncoderLayer):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.scale = nn.Parameter(sorix.full(1, 2.0))

        def forward(self, src, **masks):
            return super().forward(src, **masks) * self.scale

    generator = sorix.Generator(3)
    scaled = Scaled(8, 2, 12, generator=generator).eval()
    plain = nn.TransformerEncoderLayer(8, 2, 12, generator=sorix.Generator(3)).eval()
    x = sorix.randn((2, 3, 8))
    np.testing.assert_array_equal(scaled(x).data, 2 * plain(x).data)
    assert list(scaled.state_dict()) == ["scale", *plain.state_dict()]


def test_without_a_generator_keys_are_those_of_the_process():
    x = randn((2, 3, 8), dtype="float32")

    def run():
        sorix.manual_seed(11)
        layer = nn.TransformerEncoderLayer(8, 2, 12)
        offset = sorix.default_generator().offset
        y = layer(x)
        assert sorix.default_generator().offset == offset + 4
        return y.tolist(), layer(x).tolist()

    first, second = run()
    assert run() == (first, second)
    assert first != second


def test_parts_may_be_others_or_are_refused():
    x = randn((2, 3, 8))
    layer = layer_of(nn.TransformerEncoderLayer, 0.0, norm_first=True)
    layer.dropout = nn.Sequential(nn.Tanh(), nn.Dropout(0.0))
    layer.dropout2 = nn.DropPath(1.0)
    y = layer(x)
    layer.linear2 = nn.Linear(12, 8, dtype="float64")
    np.testing.assert_array_equal(y.data, layer(x).data)
    layer.dropout1 = nn.DropPath(0.5)
    with pytest.raises(TypeError, match="dropout: expected a Dropout, got DropPath"):
        layer(x)
    layer.dropout1, layer.norm2 = nn.Dropout(0.0), nn.ReLU()
    with pytest.raises(TypeError, match="norm: expected a LayerNorm, got ReLU"):
        layer(x)
    attention = layer.self_attn
    attention.dropout = nn.AlphaDropout(0.5)
    with pytest.raises(TypeError, match="dropout: expected a Dropout, got AlphaDropout"):
        attention(x, x, x)
    attention.dropout, attention.out_proj = nn.Dropout(0.5), nn.ReLU()
    with pytest.raises(TypeError, match="out_proj: expected a Linear, got ReLU"):
        attention(x, x, x)


def test_what_does_not_fit_is_an_error_before_a_key_is_taken():
    generator = sorix.Generator(1)
    heads = "num_heads: expected a divisor of the width, at least 1, got "
    for text, make in [
        (heads + "3", lambda: nn.MultiheadAttention(8, 3, generator=generator)),
        (heads + "0", lambda: nn.TransformerEncoderLayer(8, 0, generator=generator)),
        (
            "drop probability must be a number in [0, 1], got p = 1.5",
            lambda: nn.MultiheadAttention(8, 2, 1.5, generator=generator),
        ),
        (
            "drop probability must be a number in [0, 1], got p = NaN",
            lambda: nn.TransformerDecoderLayer(8, 2, dropout=math.nan, generator=generator),
        ),
        (
            "activation: expected 'relu', 'gelu', 'gelu_tanh' or 'silu', got 'tanh'",
            lambda: nn.TransformerEncoderLayer(8, 2, activation="tanh", generator=generator),
        ),
    ]:
        with pytest.raises(ValueError) as error:
            make()
        assert text in str(error.value)
    layers = nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer
    for layer in layers:
        with pytest.raises(ValueError, match="batch_first: expected True"):
            layer(8, 2, batch_first=False, generator=generator)
        with pytest.raises(
            TypeError, match="generator: expected a sorix.Generator, got builtins.int"
        ):
            layer(8, 2, generator=42)
    assert generator.offset == 0

    layer = nn.MultiheadAttention(8, 2, 0.5, generator=generator)
    x, key = sorix.ones((2, 3, 8)), sorix.ones((2, 4, 8))
    for text, call in [
        (
            "expected a query of shape [N, L, 8] or [L, 8], got shape [3, 4]",
            lambda: layer(*[sorix.ones((3, 4))] * 3),
        ),
        ("expected a key of shape [2, S, 8], got shape [3, 8]", lambda: layer(x, x[0], x[0])),
        ("expected a value of shape [2, 4, 8], got shape [2, 3, 8]", lambda: layer(x, key, x)),
        (
            "expected a key_padding_mask of shape [2, 4], got shape [2, 3]",
            lambda: layer(x, key, key, sorix.zeros((2, 3))),
        ),
    ]:
        with pytest.raises(ValueError) as error:
            call()
        assert text in str(error.value)
    with pytest.raises(TypeError, match="float64"):
        layer(*[x.to("float64")] * 3)
    with pytest.raises(ValueError, match="need_weights: expected False, got True"):
        layer(x, x, x, need_weights=True)
    with pytest.raises(TypeError, match="expected a tensor of sorix, .* got numpy.ndarray"):
        layer(x.numpy(), x, x)
    assert layer.dropout.generator.offset == 0
    with pytest.raises(ValueError, match="scaled_dot_product_attention"):
        layer(x, key, key, attn_mask=sorix.zeros((3, 5)))
    encoder = nn.TransformerEncoderLayer(8, 2, 12, layer_norm_eps=-1.0)
    with pytest.raises(ValueError, match="eps"):
        encoder(x)
