"""Pickles made to do harm: nothing that they name runs or is imported, and what they take is bounded."""

from __future__ import annotations

import os
import pickle
import pickletools
import resource
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from looking import PACKAGE, NotingReader, inspect

from novabackup.components import Bm25, PickledList, _child

MEMORY = 256 << 20
COMPONENT = PickledList("chunks.pkl", timeout=3)


class Calls:
    """Pickles itself as a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def call(module: str, name: str, arguments: bytes) -> bytes:
    """A call by opcodes of a name that need not exist, in a list of one."""
    return b"\x80\x02](c" + f"{module}\n{name}\n".encode() + arguments + b"Re."


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def payloads(marker: Path) -> dict[str, bytes]:
    touch = f"touch {marker}"
    write = f"open({str(marker)!r}, 'w').close()"
    getattr_chain = (
        b"\x80\x04](cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R"
        b"" + text(touch) + b"\x85Re."
    )
    return {
        "os.system": pickle.dumps([Calls(os.system, touch)]),
        "subprocess": pickle.dumps([Calls(subprocess.check_call, ["touch", str(marker)])]),
        "Popen": pickle.dumps([Calls(subprocess.Popen, ["touch", str(marker)])]),
        "exec": pickle.dumps([Calls(exec, write)]),
        "eval": pickle.dumps([Calls(eval, write)]),
        "getattr chain": getattr_chain,
        "__newobj__": call("copyreg", "__newobj__", b"(cos\nsystem\n" + text(touch) + b"t"),
        "_reconstructor": call("copyreg", "_reconstructor", b"(cos\nsystem\ncbuiltins\nobject\n" + text(touch) + b"t"),
        "attrgetter": call("operator", "methodcaller", text("system") + text(touch) + b"\x86"),
        "partial": pickle.dumps([Calls(__import__("functools").partial, os.system, touch)]),
        "import": call("importlib", "import_module", text("antigravity") + b"\x85"),
        "INST": b"(ios\nsystem\n(lp0\n.".replace(b"(i", b"(V" + touch.encode() + b"\ni").replace(b"(lp0\n", b""),
        "OBJ": b"\x80\x02(cos\nsystem\n" + text(touch) + b"o.",
        "__main__": call("__main__", "run", text(touch) + b"\x85"),
        "own script": call("_sandbox", "main", b")"),
        "__setstate__": b"\x80\x02](cos\nsystem\n)\x81}(" + text("__setstate__") + b"cos\nsystem\nub" + b"e.",
        "state on a class": b"\x80\x02](cos\nsystem\n}(" + text("__new__") + b"cos\nsystem\nub" + b"e.",
        "__class__": b"\x80\x02](cos\nsystem\n)\x81}(" + text("__class__") + b"cos\nsystem\nub" + b"e.",
        "slots state": b"\x80\x02](cos\nsystem\n)\x81N}(" + text("__class__") + b"cos\nsystem\nu\x86b" + b"e.",
        "call of a call": b"\x80\x02](cos\npopen\n" + text(touch) + b"\x85R" + text(touch) + b"\x85Re.",
        "NEWOBJ_EX": b"\x80\x04](cos\nsystem\n(" + text(touch) + b"t}\x92e.",
        "setitem": b"\x80\x02cos\nenviron\n)R" + text("PATH") + text("x") + b"s.",
        "extension code": b"\x80\x02](\x82\x01e.",
        "persistent id": b"\x80\x02](" + text("id") + b"Qe.",
        "persistent id 0": b"(Pid\nl.",
        "out of band": b"\x80\x05](\x97e.",
    }


@pytest.mark.parametrize("name", payloads(Path("x")))
@pytest.mark.parametrize("component", [COMPONENT, Bm25("bm25.pkl", timeout=5)])
def test_nothing_that_a_pickle_names_runs(name, component, tmp_path):
    marker = tmp_path / "ran"
    report = inspect(component, payloads(marker)[name])
    assert not marker.exists()
    assert all(problem.code == "damaged" for problem in report.problems)
    assert report.problems or report.count in (0, 1)


IMPORTS = """
import json, os, runpy, sys
read = runpy.run_path(sys.argv[1])["read"]
before = set(sys.modules)
for path in sys.argv[2:]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        read(descriptor, 0, os.fstat(descriptor).st_size, "list")
    except Exception:
        pass
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_no_module_that_a_pickle_names_is_imported(tmp_path):
    paths = []
    for number, data in enumerate(payloads(tmp_path / "ran").values()):
        paths.append(tmp_path / f"{number}.pkl")
        paths[-1].write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORTS, str(PACKAGE / "_pickle_child.py"), *map(str, paths)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert not (tmp_path / "ran").exists()


def nested(start: bytes, end: bytes, depth: int = 100_000) -> bytes:
    return b"\x80\x02" + start * depth + end * depth + b"."


def laughs(combine: bytes, levels: int = 60) -> bytes:
    """Each level holds the one before twice."""
    level = b"".join(
        b"q" + bytes([number]) + b"0h" + bytes([number]) + b"h" + bytes([number]) + combine for number in range(levels)
    )
    return b"\x80\x02K\x01K\x01\x86" + level


BOMBS = {
    "memo index": b"\x80\x02]r\xff\xff\xff\x7f.",
    "text length": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "bytes length": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytearray length": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "number length": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",
    "negative length": b"\x80\x02\x8b" + struct.pack("<i", -1) + b"x.",
    "frame length": b"\x80\x04\x95" + struct.pack("<Q", (1 << 63) - 1) + b"].",
    "frame length, all bits": b"\x80\x04\x95" + b"\xff" * 8 + b"].",
    "nested lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "nested tuples": nested(b"(", b"t"),
    "nested tuple as a key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "nested dicts": b"\x80\x02" + b"}K\x01" * 100_000 + b"N" + b"s" * 100_000 + b".",
    "marks": b"\x80\x02" + b"(" * 3_000_000 + b".",
    "exponential tuples": laughs(b"\x86") + b".",
    "exponential hash": b"\x80\x02}" + laughs(b"\x86")[2:] + b"K\x01s.",
    "exponential set": b"\x80\x04\x8f(" + laughs(b"\x86")[2:] + b"\x90.",
    "many small dicts": b"\x80\x02](" + b"}" * 10_000_000 + b"e.",
    "many names": b"\x80\x02](" + b"".join(b"cm\nn%d\n" % number for number in range(400_000)) + b"e.",
    "a list in itself": b"\x80\x02]q\0h\0a.",
    "digits": b"\x80\x02(I" + b"9" * 1_000_000 + b"\nl.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_as_a_finding_or_a_count_within_its_limits(name):
    data = BOMBS[name]
    report = inspect(COMPONENT, data)
    assert all(problem.code == "damaged" for problem in report.problems)
    assert report.problems or isinstance(report.count, int)
    if "length" in name or name in ("memo index", "marks"):
        assert report.problems


@pytest.mark.parametrize(
    "name", ["memo index", "bytes length", "bytearray length", "many small dicts", "exponential set"]
)
def test_a_bomb_takes_no_more_memory_than_allowed(name):
    data = BOMBS[name]
    with NotingReader(data, "chunks.pkl") as reader:
        arguments = {"size": len(data), "start": 0, "shape": "list"}
        outcome = _child.run("_pickle_child.py", reader.file(), arguments, _child.Limits(memory=MEMORY, seconds=3))
    assert outcome.failure
    # The system counts the peak of the parent, whose memory the child shares until it is another program, as its own.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert outcome.peak <= max(MEMORY, own + (64 << 20))


def test_the_bombs_are_what_they_are_called():
    opcodes = [opcode.name for opcode, _, _ in pickletools.genops(BOMBS["exponential tuples"])]
    assert opcodes.count("TUPLE2") == 61


@pytest.mark.parametrize(
    "number", [b"\x8a\x09" + bytes(8) + b"\x01", b"\x8a\x0a" + b"\xff" * 9 + b"\x00", b"J\xff\xff\xff\x7f"]
)
@pytest.mark.parametrize("made", [b"cx\nBM\n)\x81", b"cx\nBM\n)R"])
def test_more_documents_than_the_file_has_bytes_is_a_lie(number, made):
    data = b"\x80\x02" + made + b"}(" + text("corpus_size") + number + text("doc_len") + b"]ub."
    report = inspect(Bm25("bm25.pkl"), data)
    assert report.count is None
    assert any("larger number stated" in problem.message for problem in report.problems)


@pytest.mark.parametrize("made", [b")\x81", b")R"])
def test_a_name_with_control_or_half_characters_can_be_shown_and_written(made):
    name = b"\x1b[31m\nB\xed\xa0\x80"
    push = b"X\x01\0\0\0xX" + struct.pack("<I", len(name)) + name + b"\x93"
    data = b"\x80\x04" + push + made + b"}(" + text("corpus_size") + b"K\x01" + text("doc_len") + b"]K\x04aub."
    report = inspect(Bm25("bm25.pkl"), data)
    assert report.kind == r"\x1b[31m\nB\ud800"
    for problem in inspect(COMPONENT, data).problems:
        assert problem.message.isprintable()
