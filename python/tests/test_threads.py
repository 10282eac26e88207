"""Threads, processes made by fork, and signals."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import sorix
from sorix import nn

LARGE = 9_000_000
"""More elements than one thread does alone."""


def in_a_child(work):
    """Whether `work` is true in a process that is forked off here; fails where it hangs."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    for _ in range(1200):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


def run(program, **options):
    program = textwrap.dedent(program)
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_works_on(threads):
    before = sorix.get_num_threads()
    sorix.set_num_threads(threads)
    try:
        x = np.ones(LARGE, np.float32)
        # The pool is started, and its threads stay here.
        y = sorix.dropout(x, 0.1, seed=1)
        a = sorix.ones((600, 600))
        product = (a @ a).data.copy()

        def work():
            again = np.array_equal(sorix.dropout(x, 0.1, seed=1), y)
            sorix.set_num_threads(2)
            again &= np.array_equal(sorix.dropout(x, 0.1, seed=1), y)
            layer = nn.Linear(300, 300)
            layer(sorix.ones((300, 300))).sum().backward()
            return again and np.array_equal((a @ a).data, product)

        assert in_a_child(work)
        assert in_a_child(lambda: in_a_child(work))
        assert np.array_equal(sorix.dropout(x, 0.1, seed=1), y)
    finally:
        sorix.set_num_threads(before)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_process_may_fork_while_other_threads_work():
    stop = threading.Event()

    def busy():
        layer, x = nn.Linear(64, 64), sorix.ones((64, 64))
        while not stop.is_set():
            layer(x).sum().backward()
            nn.Dropout(0.5)(x)

    workers = [threading.Thread(target=busy) for _ in range(3)]
    for worker in workers:
        worker.start()
    try:
        for _ in range(30):
            assert in_a_child(
                lambda: nn.Dropout(0.5)(nn.Linear(64, 64)(sorix.ones((64, 64)))).shape == (64, 64)
            )
    finally:
        stop.set()
        for worker in workers:
            worker.join()


def test_python_runs_on_while_rust_works():
    x = np.ones(30_000_000, np.float32)
    out = np.empty_like(x)
    seen = 0
    thread = threading.Thread(
        target=lambda: [sorix.dropout(x, 0.1, seed=1, out=out) for _ in range(5)]
    )
    thread.start()
    while thread.is_alive():
        seen += 1
        time.sleep(0.001)
    thread.join()
    assert seen > 3


def test_threads_share_modules_and_get_keys_once_each():
    layer = nn.Dropout(0.5, generator=sorix.Generator(1))
    x = sorix.ones(64)
    outputs = []

    def work():
        for _ in range(50):
            outputs.append(tuple(layer(x).tolist()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert layer.generator.offset == 200
    assert len(set(outputs)) == 200


def test_an_array_that_another_thread_writes_is_not_read():
    x = np.ones(30_000_000, np.float32)
    told = []
    started = threading.Event()

    def write():
        started.set()
        for _ in range(3):
            sorix.dropout(x, 0.1, seed=1, out=x)

    thread = threading.Thread(target=write)
    thread.start()
    started.wait()
    while thread.is_alive():
        try:
            sorix.dropout(x[:10], 0.1, seed=1)
        except ValueError as error:
            told.append(str(error))
        time.sleep(0.0005)
    thread.join()
    assert told
    assert "read while it is written" in told[0]


@pytest.mark.skipif(os.name == "nt", reason="signals are other ones")
def test_ctrl_c_ends_a_training_loop():
    process = run(
        """
        import signal

        import sorix
        from sorix import nn

        # What a shell starts in the background ignores the signal from the beginning.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        net = nn.Sequential(nn.Linear(256, 256), nn.Dropout(0.5), nn.Linear(256, 1))
        optimizer = nn.Adam(net)
        x = sorix.ones((256, 256))
        print("begun", flush=True)
        while True:
            optimizer.zero_grad()
            net(x).sum().backward()
            optimizer.step()
        """
    )
    with process:
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == -signal.SIGINT
    assert errors.splitlines()[-1] == "KeyboardInterrupt"


def test_a_backend_is_chosen_by_the_environment():
    program = "import sorix; print(sorix.mask(16, 0.5, 42, packed=True).tolist())"
    for name in ("reference", "portable"):
        process = run(program, env={**os.environ, "SORIX_BACKEND": name})
        output, errors = process.communicate(timeout=60)
        assert errors == ""
        assert output == f"{sorix.mask(16, 0.5, 42, packed=True).tolist()}\n"
    process = run(program, env={**os.environ, "SORIX_BACKEND": "no such"})
    _, errors = process.communicate(timeout=60)
    assert "RuntimeError" in errors
    assert "no such" in errors


def test_pytorch_is_not_imported_unless_it_is_asked_for():
    process = run("import sys, sorix, sorix.nn; print('torch' in sys.modules)")
    output, _ = process.communicate(timeout=60)
    assert output == "False\n"
