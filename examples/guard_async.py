"""Guard an asynchronous ingestion: the event loop goes on while the snapshot is taken and while files are put back."""

import asyncio

import manuals

from novabackup import IndexStore, snapshot

folder = manuals.new_folder("brakes")
store = IndexStore(folder)


async def ingest(name: str) -> None:
    async with snapshot(store, tags=["async"]):
        await asyncio.to_thread(manuals.ingest, folder, name)
        if name == "wheels":
            await asyncio.Event().wait()  # something that never comes


async def main() -> None:
    await ingest("cooling")
    print("cooling:", store.inspect()["metadata.json"].count, "chunks")
    try:
        await asyncio.wait_for(ingest("wheels"), timeout=1)
    except TimeoutError:
        print("wheels was cancelled:", store.inspect()["metadata.json"].count, "chunks, as before")


asyncio.run(main())
