"""The page of the original, cell by cell."""

import numpy as np


def test_the_cells_of_the_page(capsys):
    import sorix
    from sorix import tensor
    from sorix.nn import Dropout

    # Cell 1
    n = 100_000
    X = tensor(np.ones((1, n)))
    p = 0.5
    dropout = Dropout(p=p)
    dropout.train()
    Y = dropout(X)
    assert abs(Y.data.mean() - 1.0) < 0.01
    assert set(np.unique(Y.data)) == {0.0, 2.0}

    # Cell 2
    dropout.eval()
    print(f"{dropout(X).data.mean():.4f}")
    assert capsys.readouterr().out == "1.0000\n"

    # Cell 3. The values of the page are those of one seed of the original's generator; here a key whose
    # mask is the page's stands for it.
    dropout.train()
    sorix.manual_seed(next(seed for seed in range(1000) if _is_the_page(seed)))
    X = tensor([10.0, 20.0, 30.0, 40.0, 50.0], requires_grad=True)
    Y = dropout(X)
    Y.sum().backward()
    print(Y)
    print(X.grad)
    assert capsys.readouterr().out == (
        "tensor([  0.,  40.,   0.,  80., 100.], dtype=sorix.float64)\n"
        "tensor([0., 2., 0., 2., 2.], dtype=sorix.float64)\n"
    )

    # Cell 4
    assert repr(dropout) == "Dropout(p=0.5)"
    assert dropout.parameters() == []


def _is_the_page(seed):
    import sorix

    return sorix.mask(5, 0.5, seed).tolist() == [False, True, False, True, True]


def test_data_is_an_array_without_a_copy_and_read_only():
    import pytest
    import sorix

    x = sorix.ones((1000, 1000))
    assert x.data.ctypes.data == x.data.ctypes.data == x.numpy().ctypes.data
    assert x.T.data.ctypes.data == x.data.ctypes.data
    assert x.T.data.strides == (4, 4000)
    assert not x.data.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        x.data[0, 0] = 2.0
    with pytest.raises(ValueError):
        x.data.flags.writeable = True

    # An array keeps what it shows, whatever becomes of the tensor.
    before = x.data
    x.copy_(sorix.zeros((1000, 1000)))
    assert before.sum() == 1e6
    assert x.data.sum() == 0
    del x
    assert before.sum() == 1e6


def test_beside_the_other_distribution_it_does_not_import(tmp_path):
    import subprocess
    import sys
    from pathlib import Path

    import sorix

    package = tmp_path / "sorix"
    package.mkdir()
    init = Path(sorix.__file__).read_text()
    (package / "__init__.py").write_text(init)
    (package / "tensor.py").write_text("")
    program = [sys.executable, "-c", "import sorix"]
    run = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "pip uninstall sorix sorix-rs" in run.stderr.splitlines()[-1]
