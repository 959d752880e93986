"""Get a file out of a repository of format 1 without novabackup: pip install blake3 zstandard.

python read_without_novabackup.py REPOSITORY SNAPSHOT FILE OUTPUT        (SNAPSHOT may be "latest")
"""

import json
import struct
import sys
from pathlib import Path

import zstandard
from blake3 import blake3


def check(data, expected, what):
    if blake3(data).hexdigest() != expected:
        sys.exit(f"{what} is damaged")
    return data


def unpack(codec, stored, size):
    raw = stored if codec == 0 else zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    assert codec in (0, 1)
    assert len(raw) == size
    return raw


def read_chunks(pack, pack_id):
    """Give all chunks of a pack; their hashes are in the table, and the table's hash is the pack's id."""
    _, _, codec, encryption, stored_size, size, _ = struct.unpack("<8sHBBII12s", pack[-32:])
    assert encryption == 0
    table_at = len(pack) - 32 - stored_size
    check(pack[table_at:], pack_id, f"the table of pack {pack_id}")
    table = unpack(codec, pack[table_at:-32], size)
    _, frames, chunks = struct.unpack_from("<16sII", table)
    rows = struct.iter_unpack("<I32s", table[24 + 48 * frames : 24 + 48 * frames + 36 * chunks])
    at, content = 16, []
    for codec, stored, size, count, digest in struct.iter_unpack("<IIII32s", table[24 : 24 + 48 * frames]):
        frame = unpack(codec, check(pack[at : at + stored], digest.hex(), f"a frame of pack {pack_id}"), size)
        at += stored
        start = 0
        for _, (length, chunk) in zip(range(count), rows, strict=False):
            content.append(check(frame[start : start + length], chunk.hex(), f"a chunk of pack {pack_id}"))
            start += length
    return content


def main(repository, name, path, output):
    """Write one file of one snapshot."""
    found = sorted(Path(repository, "snapshots").glob("*.json" if name == "latest" else f"{name}*.json"))[-1]
    line = found.read_bytes()
    snapshot = json.loads(check(line[len('{"blake3":"","snapshot":') + 64 : -2], line[11:75].decode(), found))
    (file,) = [file for file in snapshot["files"] if file["path"] == path]
    packs = {}
    for number in {run[0] for run in file["runs"]}:
        pack_id = snapshot["packs"][number]
        packs[number] = read_chunks(Path(repository, "packs", pack_id[:2], pack_id).read_bytes(), pack_id)
    content = b"".join(b"".join(packs[pack][first : first + count]) for pack, first, count in file["runs"])
    Path(output).write_bytes(check(content, file["blake3"], path))
    print(f"{path} of snapshot {found.stem}: {len(content)} bytes, every one checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
