"""See what is in a store, and whether its files belong together."""

import manuals

from novabackup import IndexStore

folder = manuals.new_folder("brakes", "engine", "wheels")
store = IndexStore(folder)

for report in store.inspect():
    print(
        f"{report.path}: {report.size} bytes, {report.count} entries, dimension {report.dimension}, "
        f"{report.kind}, {report.written_with}"
    )
print("Problems:", len(store.check()))

manuals.write_bm25(folder, manuals.read_chunks("brakes"))
for problem in store.check():
    print("Problem:", problem)
