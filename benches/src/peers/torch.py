"""Measures PyTorch's dropout against a copy, in turn. Talks to sorix-bench in lines of JSON.

First writes {"torch": version}. Then, for each line {"shape": [..], "p": .., "threads": ..,
"budget": seconds in all, "sample": seconds per sample, "pairs": most pairs}, writes the medians of
a call, of a copy and of their ratios.
"""

import ctypes
import json
import statistics
import sys
import time

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit(1)


def seconds_per_call(repeats, call):
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def repeats(sample, call):
    call()
    return max(1, int(sample / seconds_per_call(1, call)))


def fastest_copy(x, out):
    """PyTorch's own copy or the C library's: threads make the former slow on small tensors."""

    def own():
        out.copy_(x)

    def system():
        ctypes.memmove(out.data_ptr(), x.data_ptr(), x.numel() * x.element_size())

    return min((own, system), key=lambda copy: min(seconds_per_call(1, copy) for _ in range(5)))


def check(x, y, p):
    kept = y != 0
    assert torch.allclose(y[kept], x[kept] / (1 - p)), "the result is not a dropout"
    n = x.numel()
    dropped = n - int(kept.sum())
    assert abs(dropped - n * p) < 6 * (n * p * (1 - p)) ** 0.5, "another share is dropped"


def measure(shape, p, threads, budget, sample, pairs):
    torch.set_num_threads(threads)
    x = torch.rand(shape) + 1
    out = torch.ones_like(x)

    def subject():
        return F.dropout(x, p, training=True)

    check(x, subject(), p)
    copy = fastest_copy(x, out)
    start = time.perf_counter()
    each = (repeats(sample, subject), repeats(sample, copy))
    seen = []
    while not seen or (len(seen) < pairs and time.perf_counter() - start < budget):
        seen.append((seconds_per_call(each[0], subject), seconds_per_call(each[1], copy)))
    return {
        "subject": statistics.median(a for a, _ in seen),
        "copy": statistics.median(b for _, b in seen),
        "ratio": statistics.median(a / b for a, b in seen),
        "pairs": len(seen),
    }


print(json.dumps({"torch": torch.__version__}), flush=True)
for line in sys.stdin:
    with torch.no_grad():
        print(json.dumps(measure(**json.loads(line))), flush=True)
