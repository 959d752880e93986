"""The section on encryption says all that is needed to read an encrypted repository with other tools."""

from __future__ import annotations

import base64
import json
import struct
import unicodedata
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from places import ROOT
from test_format_document import fields, members, section

from novabackup.format import records as model

GOLDEN = ROOT / "tests/golden/format-1-encrypted"


def derive(secret: bytes, info: str, salt: bytes | None = None, length: int = 32) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info.encode()).derive(secret)


def decrypt(key: bytes, data: bytes, context: str) -> bytes:
    return AESGCM(key).decrypt(data[:12], data[12:], context.encode())


def body(path: Path, kind: str) -> dict:
    line = path.read_bytes()
    inside = line[len(f'{{"blake3":"","{kind}":') + 64 : -2]
    assert line[11:75].decode() == blake3(inside).hexdigest()
    return json.loads(inside)


class Reader:
    """Written from the document alone; uses nothing of novabackup."""

    def __init__(self, root: Path, passphrase: str) -> None:
        self.root = root
        config = body(root / "config.json", "config")
        assert config["encryption"] == "aes-256-gcm"
        (slot,) = (body(path, "key") for path in (root / "keys").iterdir())
        assert slot["repository"] == config["id"]
        secret = unicodedata.normalize("NFKC", passphrase).encode()
        salt, wrapped = base64.b64decode(slot["salt"]), base64.b64decode(slot["data"])
        wrapping = Scrypt(salt=salt, length=32, n=slot["n"], r=slot["r"], p=slot["p"]).derive(secret)
        context = f"novabackup key\n{config['id']}\npassphrase\n{slot['n']} {slot['r']} {slot['p']}"
        self.key = decrypt(wrapping, wrapped, context)
        self.id = derive(self.key, "novabackup key id", length=8)
        self.chunk_ids = derive(self.key, "novabackup chunk ids")

    def record(self, place: str, kind: str) -> dict:
        sealed = body(self.root / place, "sealed")
        assert sealed["key"] == self.id.hex()
        records = derive(self.key, "novabackup records")
        content = decrypt(records, base64.b64decode(sealed["data"]), f"{place}\n{sealed['previous']}")
        (length,) = struct.unpack_from("<I", content)
        assert not any(content[4 + length :])
        line = zstandard.ZstdDecompressor().decompress(content[4 : 4 + length])
        return json.loads(line)[kind]

    def chunks(self, pack: str) -> list[bytes]:
        data = (self.root / "packs" / pack[:2] / pack).read_bytes()
        footer = data[-32:]
        _, _, codec, encryption, stored, size, mark = struct.unpack("<8sHBBII12s", footer)
        assert (codec, encryption, mark) == (0, 1, self.id + bytes(4))
        table = data[-32 - stored : -32]
        assert blake3(table + footer).hexdigest() == pack
        cipher = AESGCM(derive(self.key, "novabackup pack", table[:32]))
        table = cipher.decrypt(b"\xff" * 12, table[32:], footer)
        assert len(table) == size
        _, frames, count = struct.unpack_from("<16sII", table)
        rows = list(struct.iter_unpack("<I32s", table[24 + 80 * frames :]))
        assert len(rows) == count
        found, at = [], 16
        for number, row in enumerate(struct.iter_unpack("<IIII32s32s", table[24 : 24 + 80 * frames])):
            codec, stored, size, many, sealed, content = row
            assert blake3(data[at : at + stored]).digest() == sealed
            raw = unpack(codec, cipher.decrypt(number.to_bytes(12, "little"), data[at : at + stored], None), size)
            assert blake3(raw, key=self.chunk_ids).digest() == content
            at += stored
            if number == frames - 1:
                assert not many
                assert raw == bytes(size), "padding"
                continue
            start = 0
            for length, digest in rows[len(found) : len(found) + many]:
                found.append(raw[start : start + length])
                assert blake3(found[-1], key=self.chunk_ids).digest() == digest
                start += length
        return found

    def file(self, entry: dict) -> bytes:
        def read(runs):
            return b"".join(b"".join(self.chunks(entry["packs"][p])[first : first + n]) for p, first, n in runs)

        content = read(entry["runs"])
        if entry["depth"]:
            content = read(struct.iter_unpack("<III", content))
        assert blake3(content).hexdigest() == entry["blake3"]
        return content


def unpack(codec: int, stored: bytes, size: int) -> bytes:
    if codec == 1:
        return zstandard.ZstdDecompressor().decompress(stored, max_output_size=size)
    if codec == 0:
        return stored
    width, raw = stored[0], bytearray(size)
    words, at = size // width, 1 + 4 * width
    for plane, length in enumerate(struct.unpack_from(f"<{width}I", stored, 1)):
        piece = stored[at : at + length]
        raw[plane : words * width : width] = piece if length == words else unpack(1, piece, words)
        at += length
    raw[words * width :] = stored[at:]
    return bytes(raw)


def test_every_file_can_be_read_with_the_document_alone():
    reader = Reader(GOLDEN, "golden")
    names = sorted(path.stem for path in (GOLDEN / "snapshots").iterdir())
    record = reader.record(f"snapshots/{names[-1]}.json", "snapshot")
    assert body(GOLDEN / "snapshots" / f"{names[-1]}.json", "sealed")["previous"] == names[0]
    assert len(record["files"]) >= 5
    small = [entry for entry in record["files"] if entry["size"] < 20_000 or entry["path"] == "inverted.bin"]
    for entry in small:
        assert len(reader.file(entry)) == entry["size"]


@pytest.mark.parametrize("record", [model.KeySlot, model.Sealed, model.Forgotten])
def test_every_member_is_described(record):
    described = members(section("Encryption"))
    assert set(fields(record)) <= set(described), set(fields(record)) - set(described)
