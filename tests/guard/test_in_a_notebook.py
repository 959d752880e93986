"""In a notebook: interrupting a cell rolls back, and an error in a cell does."""

from __future__ import annotations

import sys
import textwrap

import pytest
from jupyter_client.manager import start_new_kernel

import nova
from novabackup import recover

CELL = """
    import pathlib, threading
    import nova
    from novabackup import IndexStore, snapshot
    folder = pathlib.Path({folder!r})
    with snapshot(IndexStore(folder)):
        nova.ingest(folder, ["a new chunk"])
        print("in the block", flush=True)
        {then}
"""


@pytest.fixture
def kernel():
    manager, client = start_new_kernel(kernel_name="python3", env={"PYTHONPATH": ":".join(sys.path), "PATH": ""})
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def run(client, code: str, *, when_it_prints) -> str:
    """Run a cell; give the name of the error that it ends with."""
    client.execute(textwrap.dedent(code))
    error = ""
    while True:
        message = client.get_iopub_msg(timeout=60)
        content = message["content"]
        if message["msg_type"] == "stream" and "in the block" in content["text"]:
            when_it_prints()
        if message["msg_type"] == "error":
            error = content["ename"]
        if message["msg_type"] == "status" and content["execution_state"] == "idle":
            return error


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_interrupting_a_cell_rolls_back(folder, store, kernel):
    manager, client = kernel
    before = nova.contents(folder)
    cell = CELL.format(folder=str(folder), then="threading.Event().wait()")
    assert run(client, cell, when_it_prints=manager.interrupt_kernel) == "KeyboardInterrupt"
    assert nova.contents(folder) == before
    assert recover(store) is None
    cell = CELL.format(folder=str(folder), then="1 / 0")
    assert run(client, cell, when_it_prints=lambda: None) == "ZeroDivisionError"
    assert nova.contents(folder) == before
