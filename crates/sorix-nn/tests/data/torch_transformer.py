"""Writes torch_transformer.safetensors: layers of PyTorch's transformer, and what they make of an input.

Made with PyTorch 2.15 on a CPU, whose fast path is off, as it leaves out the padded rows. In safetensors' format by
hand: eight bytes of length, a header of JSON, and the elements.
"""

import json
import pathlib
import struct

import torch

torch.manual_seed(0)
torch.backends.mha.set_fastpath_enabled(False)
options = {"dim_feedforward": 12, "dropout": 0.1, "batch_first": True}
encoder = torch.nn.TransformerEncoderLayer(8, 2, norm_first=True, activation="gelu", **options)
decoder = torch.nn.TransformerDecoderLayer(8, 2, norm_first=False, **options)
tensors = {}
for name, layer in [("encoder", encoder), ("decoder", decoder)]:
    layer.eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tensors |= {f"{name}.{key}": value for key, value in layer.state_dict().items()}

x, memory = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
# The last two places of the second sample are padding.
padding = torch.zeros(2, 5, dtype=torch.bool)
padding[1, 3:] = True
causal = torch.nn.Transformer.generate_square_subsequent_mask(5)
with torch.no_grad():
    tensors |= {
        "x": x,
        "memory": memory,
        "encoded": encoder(x, src_key_padding_mask=padding),
        "decoded": decoder(x, memory, tgt_mask=causal),
    }

header, elements = {}, b""
for name, tensor in tensors.items():
    piece = tensor.detach().contiguous().numpy().astype("<f4").tobytes()
    offsets = [len(elements), len(elements) + len(piece)]
    header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": offsets}
    elements += piece
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
path = pathlib.Path(__file__).with_suffix(".safetensors")
path.write_bytes(struct.pack("<Q", len(text)) + text + elements)
