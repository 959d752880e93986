"""Each setting of a TOML document is found in the line in which it stands."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from novabackup.cli.config.lines import line_of, lines_of

NAMES = st.sampled_from(["a", "b-c", '"quoted # = [x]"', "'single'", "d_1"])
VALUES = st.sampled_from(
    [
        "1",
        "true",
        "1979-05-27T07:32:00Z",
        '"text # = [x] \\" {"',
        "'''\n[not.a.table]\nx = 1\n'''",
        '"""\na = 1\n\\"""b\n"""',
        "[1, 2]",
        "[\n  1, # one = 1\n  [2, 3],\n]",
        "{ env = 'NAME', deep = { x = [1, 2] } }",
        '[{ kind = "faiss" },\n  { kind = "bm25", path = "]" }]',
    ]
)
ENTRIES = st.dictionaries(NAMES, VALUES, max_size=4)
FILLERS = st.sampled_from(["", "\n", "# a comment = [x]\n", "  \n\t# more\n"])


@st.composite
def documents(draw):
    """Give a document, and where a reader of it would look for some of its settings."""
    text, places = "", {}
    for table in draw(st.lists(st.sampled_from(["", "[t1]", "[t2.sub]", "[[list]]", "[ 't 3' . x ]"]), max_size=5)):
        path = {"": None, "[t1]": ("t1",), "[t2.sub]": ("t2", "sub"), "[ 't 3' . x ]": ("t 3", "x")}.get(table)
        if table == "[[list]]":
            path = ("list", sum(1 for known in places if known[0] == "list" and len(known) == 2))
        if path is None or path in places:
            continue
        text += draw(FILLERS)
        places[path] = text.count("\n") + 1
        text += table + draw(st.sampled_from(["\n", "  # [x]\n"]))
        for name, value in draw(ENTRIES).items():
            text += draw(FILLERS)
            places[(*path, name.strip("\"'"))] = text.count("\n") + 1
            text += f"{name}{draw(st.sampled_from([' = ', '=']))}{value}\n"
    return text, places


def paths(value, path=()):
    """Walk through all that a document says."""
    if path:
        yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths(inner, (*path, key))


@given(documents())
def test_every_setting_is_found_in_its_line(document):
    text, places = document
    found = lines_of(text)
    assert {path: found[path] for path in places} == places
    assert found.keys() == set(paths(tomllib.loads(text)))


def test_what_has_no_line_of_its_own_is_looked_for_in_what_it_is_part_of():
    lines = lines_of("\n[store]\nurl = 'x'\n")
    assert line_of(lines, ("store", "url", "missing")) == 3
    assert line_of(lines, ("store", "missing")) == 2
    assert line_of(lines, ("nothing",)) == 1


def test_lines_within_arrays_are_found():
    lines = lines_of("components = [\n  { kind = 'faiss', path = 'a' },\n\n  { kind = 'bm25' },\n]\n")
    assert lines[("components", 1, "kind")] == 4
