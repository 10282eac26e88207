"""Workers of a DataLoader, and data-parallel training."""

import doctest
import os
import tempfile
from pathlib import Path

import pytest
import sorix
import sorix.torch as st
import sorix.torch._modules
import sorix.torch._patch
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Dropped(torch.utils.data.Dataset):
    """Examples that a dropout has been over."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        x = torch.ones(9_000_000)
        y = st.dropout(x, 0.1, key=(index, 0))
        nn.Dropout(0.5)(torch.ones(3))
        # What is kept, and where.
        return (y != 0).mul(torch.arange(len(y)) % 1000).sum()


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_workers_of_a_data_loader(context):
    expected = [Dropped()[index].item() for index in range(4)]
    with st.patch():
        loader = torch.utils.data.DataLoader(
            Dropped(), batch_size=1, num_workers=2, multiprocessing_context=context, timeout=60
        )
        assert [batch.item() for batch in loader] == expected


WORLD = 3


def worker(rank, folder, errors):
    try:
        torch.set_num_threads(1)
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
        )
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(8, 8), st.Dropout(0.5), nn.Linear(8, 1))
        parallel = DistributedDataParallel(model)

        def gathered(x):
            parts = [torch.empty_like(x) for _ in range(WORLD)]
            dist.all_gather(parts, x.detach())
            return parts

        # Equal seeds: equal masks on all, although each has other rows.
        torch.manual_seed(5)
        y = model[1](torch.ones(6, 8))
        assert all(torch.equal(part, y) for part in gathered(y))

        # Seeds of each worker's own: others.
        torch.manual_seed(5 + rank)
        first, *others = gathered(model[1](torch.ones(6, 8)))
        assert not any(torch.equal(part, first) for part in others)

        # The gradients of all are those of one.
        x = torch.randn(6, 8) + rank
        parallel(x).sum().backward()
        gradient = model[0].weight.grad
        assert gradient.abs().sum() > 0
        assert all(torch.equal(part, gradient) for part in gathered(gradient))

        # Parts of one tensor: its mask, without a message.
        whole = torch.arange(6.0 * 9).reshape(6, 9)
        shard = sorix.Shard((6, 9), 1, 3 * rank, 3 * rank + 3)
        part = st.dropout(whole[:, shard.start : shard.stop], 0.5, key=(7, 8), shard=shard)
        assert torch.equal(torch.cat(gathered(part), 1), st.dropout(whole, 0.5, key=(7, 8)))
        dist.destroy_process_group()
    except BaseException as error:
        errors.put(f"worker {rank}: {error!r}")
        raise
    # All is asserted. A thread of gloo that still holds a tensor while the interpreter ends would abort the
    # process now and then: pytorch/pytorch#179291.
    os._exit(0)


def test_three_workers_of_distributed_data_parallel():
    context = mp.get_context("spawn")
    errors = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        workers = [context.Process(target=worker, args=(k, folder, errors)) for k in range(WORLD)]
        for process in workers:
            process.start()
        for process in workers:
            process.join(120)
        codes = [process.exitcode for process in workers]
    told = []
    while not errors.empty():
        told.append(errors.get())
    assert codes == [0] * WORLD, told


def test_the_examples_of_the_documentation():
    parts = sorix.torch._fused, sorix.torch._norm, sorix.torch._modules, sorix.torch._patch
    for module in (st, *parts):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0
    for name in st.__all__:
        assert getattr(st, name).__doc__, name


def test_the_code_of_the_page_runs():
    page = Path(__file__).parents[2] / "README.md"
    section = page.read_text().split("## PyTorch\n")[1].split("\n## ")[0]
    blocks = [block.split("```")[0] for block in section.split("```python\n")[1:]]
    assert len(blocks) > 1
    names = {}
    try:
        for block in blocks:
            exec(block, names)
    finally:
        st.unpatch()
