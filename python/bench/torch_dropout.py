"""How long sorix.torch takes against PyTorch's own dropout, in one process and in turn.

    python bench/torch_dropout.py [--quick] [--threads N] [--filter SUBSTRING] [--json PATH]

`cargo xtask bench --peers` runs it after its own rows, with these of its options. Machines are shared and
noisy: a ratio is the median of the ratios of pairs that were timed one right after the other, and times are
shown to tell what is large, not to compare runs.

Five tables:

* a dropout: nanoseconds for an element, of `torch.nn.Dropout` and of `sorix.torch.Dropout`, and how many times
  faster the second one is;
* what is done in the pass of a dropout, forward and backward, of 1365 rows of 768: milliseconds of PyTorch's operations
  one after the other and of sorix's function, and how many times faster the second one is;
* attention of 2 samples, 8 heads, 1024 queries and keys of width 64, forward and backward: milliseconds of
  PyTorch's without dropout, with it, and with it by `sorix.torch.patch()`, and as a multiple of the first;
* a training step of `nn.TransformerEncoderLayer` without dropout, with PyTorch's, and with sorix's by
  `sorix.torch.patch()`: milliseconds, and as a multiple of the step without;
* a call of `sorix.dropout` on a small array of numpy: microseconds.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import sorix
import sorix.torch
import torch
import torch.nn.functional as F
from torch import nn

SIZES = {"64": 64, "4Ki": 4 << 10, "64Ki": 64 << 10, "1Mi": 1 << 20, "16Mi": 16 << 20}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
P = 0.1


def seconds(function, count):
    begun = time.perf_counter()
    for _ in range(count):
        function()
    return (time.perf_counter() - begun) / count


def in_turn(functions, budget, pairs=9):
    """The times of several functions, round by round."""
    for function in functions:
        function()
    longest = max(seconds(function, 3) for function in functions)
    count = max(1, int(budget / (longest * len(functions) * pairs)))
    return [[seconds(function, count) for function in functions] for _ in range(pairs)]


def median(rounds, column):
    return statistics.median(row[column] for row in rounds)


def ratio(rounds, a, b):
    return statistics.median(row[a] / row[b] for row in rounds)


def backward(y, grad, leaves):
    """Gradients that are made, and not added to others."""
    for leaf in leaves:
        leaf.grad = None
    y.backward(grad)


def dropout(op, dtype, size, budget):
    """A row: forward, or forward and backward, of a module."""
    theirs, ours = nn.Dropout(P), sorix.torch.Dropout(P)
    x = torch.randn(size).to(dtype)
    leaf = x.clone().requires_grad_()
    grad = torch.ones_like(x)

    def step(layer):
        leaf.grad = None
        layer(leaf).backward(grad)

    run = step if op == "forward_backward" else lambda layer: layer(x)
    rounds = in_turn([lambda: run(theirs), lambda: run(ours)], budget)
    return {
        "torch_ns_per_element": median(rounds, 0) * 1e9 / size,
        "sorix_ns_per_element": median(rounds, 1) * 1e9 / size,
        "times_faster": ratio(rounds, 0, 1),
    }


def fused(budget):
    """Rows: functions of sorix.torch and PyTorch's operations, forward and backward."""
    shape = (1365, 768)
    x, residual = (torch.randn(shape, requires_grad=True) for _ in range(2))
    bias, weight = (torch.randn(shape[1], requires_grad=True) for _ in range(2))
    grad = torch.ones(shape)
    st = sorix.torch
    pairs = {
        "dropout_add": (
            lambda: residual + F.dropout(x, P),
            lambda: st.dropout_add(x, residual, P),
        ),
        "bias_dropout_add": (
            lambda: residual + F.dropout(x + bias, P),
            lambda: st.bias_dropout_add(x, bias, residual, P),
        ),
        "act_dropout relu": (
            lambda: F.dropout(F.relu(x), P),
            lambda: st.act_dropout(x, "relu", P),
        ),
        "act_dropout gelu": (
            lambda: F.dropout(F.gelu(x), P),
            lambda: st.act_dropout(x, "gelu", P),
        ),
        "swiglu_dropout": (
            lambda: F.dropout(F.silu(x) * residual, P),
            lambda: st.swiglu_dropout(x, residual, P),
        ),
        "dropout_add_norm": (
            lambda: F.layer_norm(residual + F.dropout(x, P), shape[1:], weight, bias),
            lambda: st.dropout_add_norm(x, residual, shape[1], weight, bias, P)[0],
        ),
    }
    leaves = x, residual, bias, weight
    for name, functions in pairs.items():
        rounds = in_turn([lambda f=f: backward(f(), grad, leaves) for f in functions], budget)
        yield {
            "function": name,
            "elements": x.numel(),
            "p": P,
            "torch_milliseconds": median(rounds, 0) * 1e3,
            "sorix_milliseconds": median(rounds, 1) * 1e3,
            "times_faster": ratio(rounds, 0, 1),
        }


def attention(budget):
    """Rows: attention without dropout, plain, and patched, forward and backward."""
    query, key, value = (torch.randn(2, 8, 1024, 64, requires_grad=True) for _ in range(3))
    grad = torch.ones(2, 8, 1024, 64)

    def step(p):
        y = F.scaled_dot_product_attention(query, key, value, dropout_p=p)
        backward(y, grad, (query, key, value))

    def patched():
        with sorix.torch.patch():
            step(P)

    rounds = in_turn([lambda: step(0.0), lambda: step(P), patched], budget)
    for column, (name, p) in enumerate([("p = 0", 0.0), ("plain", P), ("patched", P)]):
        yield {
            "model": f"scaled_dot_product_attention, {name}",
            "elements": query.numel(),
            "p": p,
            "milliseconds": median(rounds, column) * 1e3,
            "relative_to_p_0": ratio(rounds, column, 0),
        }


def encoder_layer(budget):
    """Rows: a training step of an encoder layer without dropout, plain, and patched."""
    torch.manual_seed(0)
    layers = {p: nn.TransformerEncoderLayer(512, 8, dropout=p, batch_first=True) for p in (0.0, P)}
    x = torch.randn(8, 256, 512)

    def step(p):
        layer = layers[p]
        layer.zero_grad(set_to_none=True)
        layer(x).sum().backward()

    def patched():
        with sorix.torch.patch():
            step(P)

    rounds = in_turn([lambda: step(0.0), lambda: step(P), patched], budget)
    for column, (name, p) in enumerate([("p = 0", 0.0), ("plain", P), ("patched", P)]):
        yield {
            "model": f"TransformerEncoderLayer, {name}",
            "elements": x.numel(),
            "p": p,
            "milliseconds": median(rounds, column) * 1e3,
            "relative_to_p_0": ratio(rounds, column, 0),
        }


def numpy_calls(budget):
    x = np.ones(64, np.float32)
    out = np.empty_like(x)
    calls = [lambda: sorix.dropout(x, P, seed=1), lambda: sorix.dropout(x, P, seed=1, out=out)]
    rounds = in_turn(calls, budget)
    for column, name in enumerate(["sorix.dropout", "sorix.dropout, out="]):
        yield {
            "call": name,
            "elements": 64,
            "p": P,
            "microseconds": median(rounds, column) * 1e6,
        }


def line(first, *figures):
    text = "".join(
        f"{figure if isinstance(figure, str) else format(figure, '.3g'):>20}" for figure in figures
    )
    print(f"{first:44}{text}", flush=True)


def measured(threads, budget, selected):
    """The rows whose id is selected, each shown as soon as it is there."""
    torch.set_num_threads(threads)
    head = {"backend": "sorix.torch", "threads": threads}
    named = {
        f"{op}/{dtype}/sorix.torch/{size}": (op, dtype, size)
        for op in ("forward", "forward_backward")
        for dtype in DTYPES
        for size in SIZES
    }
    named = {name: row for name, row in named.items() if selected(name)}
    if named:
        line(
            f"dropout, {threads} thread(s)", "torch ns/element", "sorix ns/element", "times faster"
        )
    for name, (op, dtype, size) in named.items():
        row = dropout(op, DTYPES[dtype], SIZES[size], budget)
        line(name, *row.values())
        yield {"op": op, "dtype": dtype, **head, "elements": SIZES[size], "p": P, **row}

    if selected("fused/f32/sorix.torch/1365x768"):
        line(f"fused, {threads} thread(s)", "torch ms", "sorix ms", "times faster")
        for row in fused(budget):
            name, _, _, *figures = row.values()
            line(name, *figures)
            yield {"op": "fused", "dtype": "f32", **head, **row}

    if selected("attention/f32/sorix.torch/2x8x1024x64"):
        line(f"attention, {threads} thread(s)", "milliseconds", "relative to p = 0")
        for row in attention(10 * budget):
            line(row["model"], row["milliseconds"], row["relative_to_p_0"])
            yield {"op": "attention", "dtype": "f32", **head, **row}

    if selected("step/f32/sorix.torch/TransformerEncoderLayer"):
        line(f"step, {threads} thread(s)", "milliseconds", "relative to p = 0")
        for row in encoder_layer(10 * budget):
            line(row["model"], row["milliseconds"], row["relative_to_p_0"])
            yield {"op": "step", "dtype": "f32", **head, **row}

    if selected("call/f32/numpy/64"):
        line(f"call, {threads} thread(s)", "microseconds")
        for row in numpy_calls(budget):
            line(row["call"], row["microseconds"])
            yield {"op": "call", "dtype": "f32", **head, "backend": "numpy", **row}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    parser.add_argument(
        "--threads", type=int, action="append", help="may be given several times [default: 1]"
    )
    parser.add_argument(
        "--filter", default="", help="the rows with this in their id, such as forward/bf16 or step"
    )
    parser.add_argument(
        "--json", type=Path, help="where the rows go too: beside those of a file that is there"
    )
    arguments = parser.parse_args()
    rows = [
        row
        for threads in arguments.threads or [1]
        for row in measured(
            threads, 0.3 if arguments.quick else 3.0, lambda name: arguments.filter in name
        )
    ]
    if not rows:
        print(f"no row of sorix.torch has {arguments.filter!r} in its id")
    if arguments.json:
        path = arguments.json
        report = json.loads(path.read_text()) if path.exists() else {}
        machine = {"torch": torch.__version__, "python": sys.version.split()[0]}
        report["python"] = {"machine": machine, "rows": rows}
        path.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
