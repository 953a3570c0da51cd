"""VMA archives, written and read with every check (pve-facts 5). Independent of the crate `vma` on purpose: the two judge
each other."""

import hashlib
import random
import struct
import time
import uuid as uuids

BLOCK = 4096
CLUSTER = 65536
EXTENT = 512
SLOTS = 59
# The reference writer flushes when this many are in use (5.2).
FLUSH = 58
BLOBS = 12288
MOST_HEADER = 8 * CLUSTER
ZERO = bytes(BLOCK)


class Broken(Exception):
    """The archive is not one, or not a whole one."""


class Blobs:
    """The buffer of names and configurations (5.1): byte 0 unused, then length (little endian) and data, back to back."""

    def __init__(self):
        self.data = bytearray(1)

    def add(self, data):
        if len(data) > 0xFFFF:
            raise Broken(f"a blob of {len(data)} bytes does not fit")
        at = len(self.data)
        self.data += struct.pack("<H", len(data)) + data
        return at


def header(uuid, ctime, configs, devices):
    """The header: configs are (name, bytes), devices (id, name, size)."""
    blobs = Blobs()
    names, datas, infos = [0] * 256, [0] * 256, [(0, 0)] * 256
    for number, (name, data) in enumerate(configs):
        names[number] = blobs.add(name.encode() + b"\0")
        datas[number] = blobs.add(data)
    for number, name, size in devices:
        if not 1 <= number <= 254:
            raise Broken(f"a device cannot have the number {number}")
        infos[number] = (blobs.add(name.encode() + b"\0"), size)
    room = -(-len(blobs.data) // 512) * 512
    total = BLOBS + room
    if total > MOST_HEADER:
        raise Broken(f"a header of {total} bytes")
    out = bytearray(total)
    out[0:4] = b"VMA\0"
    struct.pack_into(">I16sq", out, 4, 1, uuid, ctime)
    struct.pack_into(">III", out, 48, BLOBS, len(blobs.data), total)
    struct.pack_into(">256I", out, 2044, *names)
    struct.pack_into(">256I", out, 3068, *datas)
    for number, (name, size) in enumerate(infos):
        struct.pack_into(">IIQ", out, 4096 + 32 * number, name, 0, size)
    out[BLOBS : BLOBS + len(blobs.data)] = blobs.data
    out[32:48] = hashlib.md5(out).digest()
    return bytes(out)


class Writer:
    """Writes an archive: each cluster of each device once, in any order."""

    def __init__(self, out, configs, devices, uuid=None, ctime=None):
        self.out = out
        self.uuid = uuid or uuids.uuid4().bytes
        self.sizes = {number: size for number, _, size in devices}
        self.left = {(n, c) for n, size in self.sizes.items() for c in range(-(-size // CLUSTER))}
        self.infos, self.payload = [], []
        self.written, self.zero = 0, 0
        self.extents = 0
        self.put(header(self.uuid, int(time.time()) if ctime is None else ctime, configs, devices))

    def put(self, data):
        self.out.write(data)
        self.written += len(data)

    def cluster(self, device, number, data):
        """`data` is the cluster's bytes inside the device: less than a cluster at its end."""
        self.left.remove((device, number))
        mask = 0
        for bit in range(16):
            block = data[bit * BLOCK : (bit + 1) * BLOCK]
            if block and block != ZERO[: len(block)]:
                mask |= 1 << bit
                self.payload.append(block.ljust(BLOCK, b"\0"))
            else:
                self.zero += len(block)
        self.infos.append(mask << 48 | device << 32 | number)
        if len(self.infos) == FLUSH:
            self.flush()

    def flush(self):
        head = bytearray(EXTENT)
        head[0:4] = b"VMAE"
        struct.pack_into(">H16s", head, 6, len(self.payload), self.uuid)
        struct.pack_into(f">{len(self.infos)}Q", head, 40, *self.infos)
        head[24:40] = hashlib.md5(head).digest()
        self.put(bytes(head) + b"".join(self.payload))
        self.infos, self.payload = [], []
        self.extents += 1

    def finish(self):
        if self.left:
            raise Broken(f"{len(self.left)} clusters were not written")
        # An archive without disks has one empty extent.
        if self.infos or not self.extents:
            self.flush()


def order(sizes, seed):
    """All clusters, as a backup of a running VM has them: mostly in order, devices interleaved, and some early, because
    the guest was about to write there (5.2)."""
    rng = random.Random(seed)
    rows = {number: list(range(-(-size // CLUSTER))) for number, size in sizes.items()}
    early = [(n, c) for n, row in rows.items() for c in rng.sample(row, len(row) // 10)]
    rng.shuffle(early)
    seen = set(early)
    rest = {n: [c for c in row if (n, c) not in seen] for n, row in rows.items()}
    while early or any(rest.values()):
        if early and rng.random() < 0.3:
            yield early.pop()
            continue
        full = [n for n, row in rest.items() if row]
        if not full:
            yield early.pop()
            continue
        number = rng.choice(full)
        for cluster in rest[number][: rng.randint(1, 9)]:
            yield number, cluster
            rest[number] = rest[number][1:]


def exact(stream, length, what, may_end=False):
    data = b""
    while len(data) < length:
        more = stream.read(length - len(data))
        if not more:
            if may_end and not data:
                return None
            raise Broken(f"the archive ends in {what}")
        data += more
    return data


class Reader:
    """Reads the header; `clusters` then yields (device, offset, data) with zeroes filled in, and checks all there is."""

    def __init__(self, stream):
        self.stream = stream
        head = exact(stream, BLOBS, "the header")
        if head[:4] != b"VMA\0":
            raise Broken("not a VMA archive")
        version, self.uuid, self.ctime = struct.unpack_from(">I16sq", head, 4)
        if version != 1:
            raise Broken(f"VMA version {version}")
        at, used, total = struct.unpack_from(">III", head, 48)
        if not BLOBS < total <= MOST_HEADER:
            raise Broken(f"a header of {total} bytes")
        head += exact(stream, total - BLOBS, "the header")
        if hashlib.md5(head[:32] + bytes(16) + head[48:]).digest() != head[32:48]:
            raise Broken("wrong checksum of the header")
        if at < BLOBS or at + used > total:
            raise Broken("the blobs do not lie in the header")
        self.blobs = head[at : at + used]
        self.configs, self.devices = [], {}
        names = struct.unpack_from(">256I", head, 2044)
        datas = struct.unpack_from(">256I", head, 3068)
        for name, data in zip(names, datas):
            if name and data:
                self.configs.append((self.text(name), self.blob(data)))
        for number in range(1, 255):
            name, _, size = struct.unpack_from(">IIQ", head, 4096 + 32 * number)
            if name and size:
                self.devices[number] = (self.text(name), size)
        self.seen = set()
        self.read = total

    def blob(self, at):
        if at + 2 > len(self.blobs):
            raise Broken("a blob lies outside")
        (length,) = struct.unpack_from("<H", self.blobs, at)
        if at + 2 + length > len(self.blobs):
            raise Broken("a blob ends outside")
        return self.blobs[at + 2 : at + 2 + length]

    def text(self, at):
        data = self.blob(at)
        if not data.endswith(b"\0"):
            raise Broken("a name without its end")
        return data[:-1].decode()

    def clusters(self):
        while True:
            head = exact(self.stream, EXTENT, "an extent's header", may_end=True)
            if head is None:
                break
            if head[:4] != b"VMAE" or head[4:6] != b"\0\0":
                raise Broken("not an extent")
            count, uuid = struct.unpack_from(">H16s", head, 6)
            if uuid != self.uuid:
                raise Broken("an extent of another archive")
            if hashlib.md5(head[:24] + bytes(16) + head[40:]).digest() != head[24:40]:
                raise Broken("wrong checksum of an extent")
            infos = [info for info in struct.unpack_from(f">{SLOTS}Q", head, 40) if info >> 32 & 0xFF]
            if sum((info >> 48).bit_count() for info in infos) != count:
                raise Broken("an extent's blocks do not add up")
            self.read += EXTENT + count * BLOCK
            for info in infos:
                mask, device, number = info >> 48, info >> 32 & 0xFF, info & 0xFFFFFFFF
                if device not in self.devices:
                    raise Broken(f"a cluster of the unknown device {device}")
                name, size = self.devices[device]
                offset = number * CLUSTER
                if offset >= size:
                    raise Broken(f"cluster {number} is behind the end of {name}")
                if (device, number) in self.seen:
                    raise Broken(f"cluster {number} of {name} is there twice")
                self.seen.add((device, number))
                data = b"".join(
                    exact(self.stream, BLOCK, "an extent") if mask >> bit & 1 else ZERO for bit in range(16)
                )
                yield device, offset, data[: size - offset]
        for device, (name, size) in self.devices.items():
            missing = [c for c in range(-(-size // CLUSTER)) if (device, c) not in self.seen]
            if missing:
                raise Broken(f"{len(missing)} clusters of {name} are missing, the first is {missing[0]}")
