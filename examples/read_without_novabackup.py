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


def unzip(data, size):
    return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)


def unpack(codec, stored, size):
    assert codec in (0, 1, 2)
    raw = stored
    if codec == 1:
        raw = unzip(stored, size)
    elif codec == 2:  # words whose first bytes stand together, then their second bytes, and so on
        width, raw = stored[0], bytearray(size)
        words, at = size // width, 1 + 4 * width
        for plane, length in enumerate(struct.unpack_from(f"<{width}I", stored, 1)):
            piece = stored[at : at + length]
            raw[plane : words * width : width] = piece if length == words else unzip(piece, words)
            at += length
        raw[words * width :] = stored[at:]
    assert len(raw) == size
    return bytes(raw)


def read_chunks(pack, pack_id):
    """Give all chunks of a pack; their hashes are in the table, and the table's hash is the pack's id."""
    _, _, codec, encryption, stored_size, size, _ = struct.unpack("<8sHBBII12s", pack[-32:])
    assert encryption == 0
    table_at = len(pack) - 32 - stored_size
    check(pack[table_at:], pack_id, f"the table of pack {pack_id}")
    table = unpack(codec, pack[table_at:-32], size)
    _, frames, chunks = struct.unpack_from("<16sII", table)
    rows = struct.iter_unpack("<I32s", table[24 + 80 * frames : 24 + 80 * frames + 36 * chunks])
    at, content = 16, []
    for codec, stored, size, count, digest, raw in struct.iter_unpack("<IIII32s32s", table[24 : 24 + 80 * frames]):
        frame = unpack(codec, check(pack[at : at + stored], digest.hex(), f"a frame of pack {pack_id}"), size)
        check(frame, raw.hex(), f"the content of a frame of pack {pack_id}")
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

    def read_runs(runs):
        for pack, first, count in runs:
            if pack not in packs:
                pack_id = file["packs"][pack]
                packs[pack] = read_chunks(Path(repository, "packs", pack_id[:2], pack_id).read_bytes(), pack_id)
            yield b"".join(packs[pack][first : first + count])

    content = b"".join(read_runs(file["runs"]))
    if file["depth"]:  # that was a list of runs, since there are many
        content = b"".join(read_runs(struct.iter_unpack("<III", content)))
    Path(output).write_bytes(check(content, file["blake3"], path))
    print(f"{path} of snapshot {found.stem}: {len(content)} bytes, every one checked")


if __name__ == "__main__":
    main(*sys.argv[1:])
