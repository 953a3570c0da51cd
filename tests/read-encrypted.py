"""Reads an encrypted store without Lifeboat, by docs/bundle-format.md alone: a second implementation, against which the
description is tested. usage: read-encrypted.py STORE SECRET

STORE holds lifeboat/. SECRET is a file with a recovery key in it, a key file, or a file with a passphrase (if the
installed `cryptography` knows Argon2id). Prints, of each restore point in the order of their times, a line `restore point
<id>` and a line `<path> <size> sha256:<digits>` of each file, hard links included, and of each image, with names escaped
as in the listings in fixtures/.
"""

import base64
import hashlib
import hmac
import json
import lzma
import pathlib
import subprocess
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def sha256(data):
    return hashlib.sha256(data).digest()


def hkdf(secret, salt, info):
    """RFC 5869 with SHA-256; 32 bytes are one block."""
    key = hmac.digest(salt or bytes(32), secret, "sha256")
    return hmac.digest(key, info.encode() + b"\x01", "sha256")


def zstd(data):
    return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout


def recovery_key(text):
    """The 32 bytes of a typed recovery key."""
    text = text.upper().replace("O", "0").replace("I", "1").replace("L", "1")
    values = [LETTERS.index(c) for c in text if c not in "- \n"]
    assert len(values) == 65, "not 13 groups of 5"
    bits = 0
    for group in range(13):
        *letters, check = values[group * 5 : group * 5 + 5]
        # a x + b x^2 + c x^3 + d x^4 + g x^4, modulo x^5 + x^2 + 1
        total = 0
        for value, power in zip(letters + [group], (1, 2, 3, 4, 4)):
            for _ in range(power):
                value <<= 1
                if value & 32:
                    value ^= 0b100101
            total ^= value
        assert total == check, f"group {group + 1} has a typing error"
        for value in letters:
            bits = bits << 5 | value
    key = (bits >> 4).to_bytes(32, "big")
    assert bits & 15 == sha256(key)[0] >> 4, "the groups do not fit together"
    return key


def nonce(prefix, counter):
    return prefix.to_bytes(4, "big") + counter.to_bytes(8, "big")


class Store:
    def __init__(self, root, secret):
        self.root = root
        line = (root / "store.json").read_bytes()
        self.file = json.loads(line)
        assert self.file["format"] == 1
        body, mark, rest = line.rpartition(b',"sum":"')
        assert mark and rest == self.file["sum"].encode() + b'"}\n', "sum is not the last field"
        assert sha256(body + b"}").hex() == self.file["sum"], "store.json is damaged"
        assert (root / "store.json.copy").read_bytes() == line
        self.id = self.file["id"]
        self.key = self.unlock(secret)
        self.blobs = {}
        for pack in sorted(root.glob("packs/*/*.pack")):
            self.footer(pack)
        # Indexes say the same as footers.
        for index in root.glob("index/*.idx"):
            for pack in json.loads(zstd(self.open(index, "index")))["packs"]:
                for blob in pack["blobs"]:
                    path = root / "packs" / pack["id"][:2] / (pack["id"] + ".pack")
                    assert self.blobs[blob["id"]][0] == path and self.blobs[blob["id"]][2] == blob

    def unlock(self, secret):
        encryption = self.file["encryption"]
        assert encryption["cipher"] == "aes-256-gcm"
        for slot in encryption["slots"]:
            salt = bytes.fromhex(slot["salt"])
            try:
                if slot["kind"] == "recovery":
                    raw = recovery_key(secret.decode())
                elif slot["kind"] == "key-file" and len(secret) == 32:
                    raw = secret
                elif slot["kind"] == "passphrase":
                    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

                    cost = slot["argon2id"]
                    raw = Argon2id(
                        salt=salt,
                        length=32,
                        iterations=cost["passes"],
                        lanes=cost["lanes"],
                        memory_cost=cost["memory_kib"],
                    ).derive(secret.rstrip(b"\n"))
                else:
                    continue
                wrapping = hkdf(raw, salt, f"lifeboat 1 slot {slot['kind']} {slot['id']} {self.id}")
                key = AESGCM(wrapping).decrypt(nonce(1, 0), bytes.fromhex(slot["key"]), None)
            except Exception:  # another slot's secret
                continue
            check = hkdf(key, b"", f"lifeboat 1 check {self.id}").hex()
            assert check == encryption["check"]
            return key
        sys.exit("no slot opens with this secret")

    def cipher(self, header, what):
        assert header[:16] == b"LIFEBOAT-SEAL 1\n" and len(header) == 48
        return AESGCM(hkdf(self.key, header[16:], f"lifeboat 1 {what} {self.id}"))

    def open(self, path, what):
        data = path.read_bytes()
        name = path.stem.rpartition("-")[2]
        assert sha256(data).hex().startswith(name) and len(name) in (8, 64), f"{path} is damaged"
        return self.cipher(data[:48], what).decrypt(nonce(1, 0), data[48:], None)

    def footer(self, path):
        data = path.read_bytes()
        assert sha256(data).hex() == path.stem and path.parent.name == path.stem[:2], f"{path} is damaged"
        word, version, length, check = data[-94:].decode().split()
        assert (word, version) == ("LIFEBOAT-FOOTER", "1")
        footer = data[-94 - int(length) : -94]
        assert sha256(footer).hex() == check
        cipher = self.cipher(data[:48], "pack")
        footer = json.loads(zstd(cipher.decrypt(nonce(2, 0), footer, None)))
        assert footer["format"] == 1
        for blob in footer["blobs"]:
            self.blobs[blob["id"]] = (path, cipher, blob)

    def blob(self, id, kind):
        path, cipher, blob = self.blobs[id]
        assert blob["kind"] == kind
        with path.open("rb") as file:
            file.seek(blob["offset"])
            stored = file.read(blob["stored"])
        stored = cipher.decrypt(nonce(0, blob["offset"]), stored, bytes.fromhex(id))
        plain = {"raw": bytes, "zstd": zstd, "xz": lzma.decompress}[blob["codec"]](stored)
        assert len(plain) == blob["raw"] and sha256(plain).hex() == id
        return plain

    def content(self, id, size):
        """The bytes behind a content list."""
        parsed = json.loads(self.blob(id, "content"))
        assert parsed["size"] == size
        known, parts = {}, []
        for piece in parsed["pieces"]:
            if "hole" in piece:
                parts.append(bytes(piece["hole"]))
            elif "list" in piece:
                parts.append(self.content(piece["list"], piece["size"]))
            else:
                if piece["blob"] not in known:
                    known[piece["blob"]] = self.blob(piece["blob"], "chunk")
                parts.append(known[piece["blob"]])
                assert len(parts[-1]) == piece["size"]
        whole = b"".join(parts)
        assert len(whole) == size
        return whole


def members(segment):
    """Path, type, PAX records and content of the members of a tar archive."""
    at, records = 0, {}
    while segment[at : at + 512].strip(b"\0"):
        header = segment[at : at + 512]
        size = int(header[124:136].strip(b" \0") or b"0", 8)
        data = segment[at + 512 : at + 512 + size]
        at += 512 + (size + 511) // 512 * 512
        if header[156:157] == b"x":
            records = {}
            while data:
                length = int(data.partition(b" ")[0])
                record, data = data[:length], data[length:]
                key, _, value = record.partition(b" ")[2][:-1].partition(b"=")
                records[key.decode()] = value
            continue
        path = records.get("path", header[:100].rstrip(b"\0"))
        yield path, header[156:157], records, data
        records = {}
    assert segment[at:] == bytes(1024)


def name(entry, key="path"):
    return entry[key].encode() if key in entry else base64.b64decode(entry[key + "_b64"])


def show(path, content):
    shown = repr(path)[2:-1].replace(" ", "\\x20")
    print(f"{shown} {len(content)} sha256:{sha256(content).hex()}")


def main():
    root, secret = pathlib.Path(sys.argv[1]) / "lifeboat", pathlib.Path(sys.argv[2]).read_bytes()
    store = Store(root, secret)
    for report in root.glob("reports/*.sealed"):
        assert json.loads(store.open(report, "report"))["store"] == store.id
    for path in sorted(root.glob("snapshots/*.sealed")):
        document = store.open(path, "snapshot")
        snapshot = json.loads(document)
        assert snapshot["format"] == 1
        compact = "".join(c for c in snapshot["time"] if c.isalnum())
        assert path.name.startswith(compact + "-")
        print("restore point", sha256(document).hex())
        for tree in snapshot["trees"]:
            lines = b"".join(store.blob(id, "catalogue") for id in tree["catalogue"])
            files = {}
            for line in map(json.loads, lines.splitlines()):
                found = list(members(store.blob(line["segment"], "segment")))
                if line.get("part"):
                    listed = {name(entry) for entry in line["entries"]}
                    found = [member for member in found if member[0].rstrip(b"/") in listed]
                assert len(found) == len(line["entries"])
                for entry, (path, kind, records, data) in zip(line["entries"], found):
                    assert path.rstrip(b"/") == name(entry)
                    if entry["type"] == "hardlink":
                        assert kind == b"1"
                        files[name(entry)] = files[name(entry, "target")]
                    if entry["type"] != "file":
                        continue
                    if "content" in entry:
                        assert records["LIFEBOAT.content"].decode() == entry["content"]
                        data = store.content(entry["content"], int(records["LIFEBOAT.size"]))
                    assert len(data) == entry.get("size", 0)
                    files[name(entry)] = data
            for path in sorted(files):
                show(path, files[path])
        for image in snapshot["images"]:
            show(image["node"].encode(), store.content(image["content"], image["size"]))


main()
