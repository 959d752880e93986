"""Teach novabackup another kind of file and another rule: a class and a function, passed in."""

from collections.abc import Iterator, Sequence

import manuals

from novabackup import CheckFailedError, IndexStore, Problem, Report, checks, layouts, snapshot
from novabackup.components import Component


class Synonyms(Component):
    """A text file with one group of synonyms on each line."""

    def inspect(self, reader):
        """Look at the groups; damage is reported, not raised."""
        lines = reader.read(0, reader.entry.size).decode(errors="replace").splitlines()
        lonely = [number for number, line in enumerate(lines, 1) if "," not in line]
        problems = [
            Problem(code="lonely-word", paths=(self.path,), message=f"line {number} has a single word: add another one")
            for number in lonely
        ]
        return Report(
            component="Synonyms",
            path=self.path,
            exists=True,
            size=reader.entry.size,
            kind=f"{len(lines)} groups",
            problems=tuple(problems),
        )


def at_least_ten_chunks(reports: Sequence[Report]) -> Iterator[Problem]:
    """Notice an ingestion that lost most of the corpus."""
    for report in reports:
        if report.path == "metadata.json" and (report.count or 0) < 10:
            yield Problem(code="too-small", paths=(report.path,), message=f"expected 10 chunks, found {report.count}")


folder = manuals.new_folder("brakes", "engine")
(folder / "synonyms.txt").write_text("brake, stop\ncoolant, antifreeze\n")
store = IndexStore(
    folder,
    components=[*layouts.NOVA, Synonyms("synonyms.txt")],
    checks=[*checks.DEFAULT, at_least_ten_chunks],
)
print(store.inspect()["synonyms.txt"].kind, "- problems:", len(store.check()))

try:
    with snapshot(store):
        (folder / "synonyms.txt").write_text("brake, stop\nfuse\n")
        for write in (manuals.write_faiss, manuals.write_bm25, manuals.write_metadata):
            write(folder, manuals.read_chunks("wheels"))
except CheckFailedError as error:
    print(*error.problems, sep="\n")
print("Back:", store.inspect()["synonyms.txt"].kind, "- problems:", len(store.check()))
