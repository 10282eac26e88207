"""``sorix.nn``'s attention and layers of a transformer, with the parameters of PyTorch's: the same to rounding."""

import math

import numpy as np
import pytest
import sorix
import torch
from sorix import nn

HIDDEN = -math.inf


def shaken(module):
    """With biases and norms that show."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.train()


def loaded(layer, module):
    """With PyTorch's parameters, by their names."""
    layer.load_state_dict({name: x.numpy() for name, x in module.state_dict().items()})
    return layer


def both(shape):
    """A leaf of PyTorch, and one of sorix."""
    x = torch.randn(shape, requires_grad=True)
    return x, sorix.tensor(x.detach().numpy(), requires_grad=True)


def added(mask):
    """A mask of bools, in which True leaves out, as sorix takes it."""
    return sorix.tensor(np.where(mask.numpy(), HIDDEN, 0.0).astype(np.float32))


def assert_same(expected, y, leaves, module, layer):
    """Output and all gradients."""
    grad = torch.randn_like(expected)
    expected.backward(grad)
    y.backward(sorix.tensor(grad.numpy()))
    np.testing.assert_allclose(y.data, expected.detach().numpy(), rtol=0, atol=1e-5)
    for theirs, ours in leaves:
        np.testing.assert_allclose(ours.grad.data, theirs.grad.numpy(), rtol=1e-4, atol=1e-4)
    ours = dict(layer.named_parameters())
    for name, parameter in module.named_parameters():
        found, wanted = ours.pop(name).grad.data, parameter.grad.numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4, err_msg=name)
    assert not ours


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("alike", ["all", "key and value", "none"])
def test_attention(alike, bias):
    module = shaken(torch.nn.MultiheadAttention(8, 2, bias=bias, batch_first=True))
    layer = loaded(nn.MultiheadAttention(8, 2, bias=bias, batch_first=True), module)
    query, key, value = both((3, 6, 8)), both((3, 6, 8)), both((3, 6, 8))
    if alike != "none":
        value = key
    if alike == "all":
        query = key
    padding = torch.zeros(3, 6, dtype=torch.bool)
    padding[1, 4:] = True
    hidden = torch.rand(6, 6) < 0.3
    hidden[:, 0] = False
    expected, _ = module(query[0], key[0], value[0], key_padding_mask=padding, attn_mask=hidden)
    y, _ = layer(query[1], key[1], value[1], added(padding), added(hidden))
    assert_same(expected, y, dict.fromkeys((query, key, value)), module, layer)


def test_what_is_causal():
    module = shaken(torch.nn.MultiheadAttention(8, 2, batch_first=True))
    layer = loaded(nn.MultiheadAttention(8, 2), module)
    query, key = both((3, 5, 8)), both((3, 5, 8))
    causal = torch.nn.Transformer.generate_square_subsequent_mask(5)
    expected, _ = module(query[0], key[0], key[0], attn_mask=causal, is_causal=True)
    y, _ = layer(query[1], key[1], key[1], is_causal=True)
    assert_same(expected, y, (query, key), module, layer)


NAMES = {"relu": "relu", "gelu": "gelu", "silu": torch.nn.functional.silu}


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", NAMES)
def test_an_encoder_layer(activation, norm_first):
    options = {"layer_norm_eps": 1e-3, "norm_first": norm_first}
    module = shaken(
        torch.nn.TransformerEncoderLayer(
            8, 2, 16, 0.0, NAMES[activation], batch_first=True, **options
        )
    )
    layer = loaded(nn.TransformerEncoderLayer(8, 2, 16, 0.0, activation, **options), module)
    x = both((3, 5, 8))
    padding = torch.zeros(3, 5, dtype=torch.bool)
    padding[2, 3:] = True
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    expected = module(x[0], src_mask=causal, src_key_padding_mask=padding)
    y = layer(x[1], src_key_padding_mask=added(padding), is_causal=True)
    assert_same(expected, y, [x], module, layer)
    np.testing.assert_array_equal(
        y.data, layer(x[1], added(causal), added(padding), is_causal=True).data
    )


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", NAMES)
def test_a_decoder_layer(activation, norm_first):
    options = {"layer_norm_eps": 1e-3, "norm_first": norm_first}
    module = shaken(
        torch.nn.TransformerDecoderLayer(
            8, 2, 16, 0.0, NAMES[activation], batch_first=True, **options
        )
    )
    layer = loaded(nn.TransformerDecoderLayer(8, 2, 16, 0.0, activation, **options), module)
    x, memory = both((3, 5, 8)), both((3, 7, 8))
    masks = {
        "tgt_mask": torch.ones(5, 5, dtype=torch.bool).triu(1),
        "memory_mask": torch.rand(5, 7) < 0.3,
        "tgt_key_padding_mask": torch.tensor([[False] * 5, [False] * 5, [False] * 3 + [True] * 2]),
        "memory_key_padding_mask": torch.tensor(
            [[False] * 7, [False] * 4 + [True] * 3, [False] * 7]
        ),
    }
    masks["memory_mask"][:, 0] = False
    expected = module(x[0], memory[0], **masks)
    y = layer(x[1], memory[1], **{name: added(mask) for name, mask in masks.items()})
    assert_same(expected, y, [x, memory], module, layer)


@pytest.mark.parametrize("name", ["TransformerEncoderLayer", "TransformerDecoderLayer"])
def test_in_use_layers_with_dropout_are_the_same_and_states_go_both_ways(name):
    module = shaken(getattr(torch.nn, name)(8, 2, 16, batch_first=True)).eval()
    layer = loaded(getattr(nn, name)(8, 2, 16), module).eval()
    inputs = [both((3, 5, 8)) for _ in range(1 + ("Decoder" in name))]
    with torch.no_grad():
        expected = module(*(x for x, _ in inputs))
    y = layer(*(x for _, x in inputs))
    np.testing.assert_allclose(y.data, expected.numpy(), rtol=0, atol=1e-5)
    other = getattr(torch.nn, name)(8, 2, 16, batch_first=True)
    state = {name: torch.tensor(x.data) for name, x in layer.state_dict().items()}
    assert list(state) == list(other.state_dict())
    other.load_state_dict(state)
    assert all(map(torch.equal, other.parameters(), module.parameters()))


def test_the_first_values_are_distributed_as_those_of_pytorch():
    module = torch.nn.TransformerEncoderLayer(64, 4, 128)
    layer = nn.TransformerEncoderLayer(64, 4, 128, generator=sorix.Generator(1))
    state = layer.state_dict()
    for name, theirs in module.state_dict().items():
        ours = state[name]
        assert ours.shape == tuple(theirs.shape)
        spread, wanted = ours.abs().max().item(), theirs.abs().max().item()
        assert spread == pytest.approx(wanted, rel=0.05), name
        if theirs.numel() > 1000:
            deviation = ours.std().item()
            assert deviation == pytest.approx(theirs.std().item(), rel=0.05), name
