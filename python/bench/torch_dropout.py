"""How long sorix.torch takes against PyTorch's own dropout, in one process and in turn.

    python bench/torch_dropout.py [--threads 1] [--quick] [--json PATH]

Each figure is the median of the ratios of pairs that were timed one right after the other: how many times
faster sorix is, but for the rows of a step, which are times relative to the step without dropout. Machines
are shared and noisy: times are shown to tell what is large, not to compare runs.
"""

import argparse
import json
import statistics
import sys
import time

import numpy as np
import sorix
import sorix.torch
import torch
from torch import nn

SIZES = [64, 4 << 10, 64 << 10, 1 << 20, 16 << 20]


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


def ratio(rounds, a, b):
    return statistics.median(row[a] / row[b] for row in rounds)


def dropouts(dtype, size, budget):
    """Rows for one dtype and number of elements."""
    theirs, ours = nn.Dropout(0.1), sorix.torch.Dropout(0.1)
    x = torch.randn(size).to(dtype)
    leaf = x.clone().requires_grad_()
    grad = torch.ones_like(x)

    def step(layer):
        leaf.grad = None
        layer(leaf).backward(grad)

    for op, run in (("forward", lambda layer: layer(x)), ("forward+backward", step)):
        rounds = in_turn([lambda r=run: r(theirs), lambda r=run: r(ours)], budget)
        yield {
            "op": op,
            "dtype": str(dtype).removeprefix("torch."),
            "elements": size,
            "torch_ns_per_element": statistics.median(row[0] for row in rounds) * 1e9 / size,
            "sorix_ns_per_element": statistics.median(row[1] for row in rounds) * 1e9 / size,
            "times_faster": ratio(rounds, 0, 1),
        }


def encoder_layer(budget):
    """A training step of an encoder layer: plain, patched, and without dropout."""
    torch.manual_seed(0)
    layers = {
        p: nn.TransformerEncoderLayer(512, 8, dropout=p, batch_first=True) for p in (0.0, 0.1)
    }
    x = torch.randn(8, 256, 512)

    def step(p):
        layer = layers[p]
        layer.zero_grad(set_to_none=True)
        layer(x).sum().backward()

    def patched():
        with sorix.torch.patch():
            step(0.1)

    rounds = in_turn([lambda: step(0.0), lambda: step(0.1), patched], budget)
    for name, column in (("plain", 1), ("patched", 2)):
        yield {
            "op": f"TransformerEncoderLayer step, {name}",
            "dtype": "float32",
            "elements": x.numel(),
            "relative_to_p_0": ratio(rounds, column, 0),
        }


def numpy_calls(budget):
    x = np.ones(64, np.float32)
    out = np.empty_like(x)
    calls = [lambda: sorix.dropout(x, 0.1, seed=1), lambda: sorix.dropout(x, 0.1, seed=1, out=out)]
    rounds = in_turn(calls, budget)
    for name, column in (("sorix.dropout", 0), ("sorix.dropout, out=", 1)):
        yield {
            "op": name,
            "dtype": "float32",
            "elements": 64,
            "microseconds": statistics.median(row[column] for row in rounds) * 1e6,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a tenth of the time")
    parser.add_argument("--json", metavar="PATH", help="where the rows go too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    budget = 0.3 if arguments.quick else 3.0
    rows = []

    def say(row):
        row["threads"] = arguments.threads
        rows.append(row)
        figures = {key: f"{value:.3g}" for key, value in row.items() if isinstance(value, float)}
        print(f"{row['op']:40} {row['dtype']:9} {row['elements']:10}", figures, flush=True)

    for dtype in (torch.float32, torch.bfloat16):
        for size in SIZES:
            for row in dropouts(dtype, size, budget):
                say(row)
    for row in (*encoder_layer(10 * budget), *numpy_calls(budget)):
        say(row)
    if arguments.json:
        machine = {"torch": torch.__version__, "python": sys.version.split()[0]}
        with open(arguments.json, "w") as file:
            json.dump({"machine": machine, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
