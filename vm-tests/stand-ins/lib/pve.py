"""What the stand-ins share: guests' configurations, storages on LVM-thin, options, and what was started when."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time

import cfs

# Exit status of all of Proxmox's command lines that fail (pve-facts 4.4).
FAILED = 255
STATE = "/run/pve-stand-ins"
# Who was started when, and what its disks held then: for a verdict from outside.
STARTS = "/var/log/pve-stand-ins/starts.log"
DISK_KEY = re.compile(r"^(ide|sata|scsi|virtio|efidisk|tpmstate)\d+$")
CT_KEY = re.compile(r"^(rootfs|mp\d+)$")


class Die(Exception):
    """Ends the command with its message."""


def main(body):
    """Runs a command's body as Proxmox's command line handler does: asked to end, its worker dies and cleans up."""

    def interrupted(*_):
        raise Die("received interrupt")

    signal.signal(signal.SIGTERM, interrupted)
    try:
        if os.geteuid() != 0:
            raise Die("please run as root")
        body()
    except (Die, cfs.NotReady) as error:
        print(error, file=sys.stderr)
        sys.exit(FAILED)
    except BrokenPipeError:
        sys.exit(FAILED)


def run(*cmd, **more):
    """Runs a tool that has to succeed; returns what it printed."""
    done = subprocess.run(list(cmd), capture_output=True, **more)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise Die(f"command '{' '.join(cmd)}' failed: exit code {done.returncode}: {said}")
    return done.stdout


def options(args, known, arguments):
    """Reads a command line: `--name value`, `--name=value`. `known` says what a value has to match; `None`: a flag, whose
    value may be left out. Returns the arguments and the options; what can be repeated is a list."""
    found, rest = {}, []
    args = list(args)
    while args:
        arg = args.pop(0)
        # `-` is standard input.
        if arg == "-" or not arg.startswith("-"):
            rest.append(arg)
            continue
        name, equals, value = arg.lstrip("-").partition("=")
        key = re.sub(r"\d+$", "", name) if re.match(r"^mp\d+$", name) else name
        if key not in known:
            raise Die(f"Unknown option: {name}\n400 unable to parse option")
        pattern = known[key]
        if pattern is None:
            if not equals:
                value = args.pop(0) if args and args[0] in ("0", "1") else "1"
            pattern = "[01]"
        elif not equals:
            if not args:
                raise Die(f"Option {name} requires an argument\n400 unable to parse option")
            value = args.pop(0)
        if not re.fullmatch(pattern, value):
            raise Die(f"400 Parameter verification failed.\n{name}: value '{value}' does not match")
        found[name] = value
    if len(rest) not in arguments:
        raise Die("400 wrong number of arguments")
    return rest, found


def vmid(text):
    if not re.fullmatch(r"[1-9]\d{2,8}", text):
        raise Die("400 Parameter verification failed.\nvmid: type check ('integer') failed - got '" + text + "'")
    return int(text)


# Configurations -------------------------------------------------------------------------------------------------------


def config_path(kind, id):
    return f"nodes/{cfs.node()}/{'qemu-server' if kind == 'qemu' else 'lxc'}/{id}.conf"


def config_text(kind, id):
    """The text of a guest's configuration, `None`: there is none."""
    cfs.check_mounted()
    try:
        with open(f"{cfs.TREE}/{config_path(kind, id)}", encoding="utf-8") as text:
            return text.read()
    except FileNotFoundError:
        return None


def guests():
    """(kind, id, configuration) of this node's guests, by number."""
    cfs.check_mounted()
    found = []
    for kind, dir in (("qemu", "qemu-server"), ("lxc", "lxc")):
        for name in os.listdir(f"{cfs.TREE}/nodes/{cfs.node()}/{dir}"):
            if match := re.fullmatch(r"(\d+)\.conf", name):
                found.append((kind, int(match[1]), parse(config_text(kind, match[1]))))
    return sorted(found, key=lambda g: g[1])


def known(id):
    """(kind, configuration) of a guest, `None`: there is none of this number."""
    return next(((kind, conf) for kind, n, conf in guests() if n == id), None)


def parse(text):
    """`key: value` up to the first section."""
    conf = {}
    for line in text.splitlines():
        if line.startswith("["):
            break
        if line.startswith("#") or ":" not in line:
            continue
        key, value = line.split(":", 1)
        conf[key] = value.strip()
    return conf


def render(conf):
    return "".join(f"{key}: {conf[key]}\n" for key in sorted(conf))


def volume(value):
    """(volume, options) of a disk's or mount point's line."""
    first, *more = value.split(",")
    for prefix in ("file=", "volume="):
        first = first.removeprefix(prefix)
    return first, dict(word.split("=", 1) for word in more if "=" in word)


def join(volid, opts):
    return ",".join([volid, *(f"{key}={value}" for key, value in opts.items())])


def size_bytes(text):
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", text)
    if not match:
        raise Die(f"unable to parse size '{text}'")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2] or " "))


def size_text(size):
    for unit, name in ((30, "G"), (20, "M"), (10, "K")):
        if size % (1 << unit) == 0:
            return f"{size >> unit}{name}"
    return str(size)


def order(conf):
    """Start order: those with one first, by it (`startup: order=2,up=30`)."""
    match = re.search(r"(?:^|,|order=)(\d+)(?:,|$)", conf.get("startup", ""))
    return int(match[1]) if match else 1 << 30


# Storages -------------------------------------------------------------------------------------------------------------


def storages():
    """Sections of storage.cfg by name (pve-facts 1.5)."""
    cfs.check_mounted()
    found, section = {}, None
    try:
        with open(f"{cfs.TREE}/storage.cfg") as lines:
            text = lines.read()
    except FileNotFoundError:
        text = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup\n"
    for line in text.splitlines():
        if match := re.match(r"^(\w+): (\S+)$", line):
            section = found[match[2]] = {"type": match[1]}
        elif section is not None and line.strip():
            key, _, value = line.strip().partition(" ")
            section[key] = value
    return found


def storage(name, content=None):
    found = storages().get(name)
    if not found:
        raise Die(f"storage '{name}' does not exist")
    if "disable" in found:
        raise Die(f"storage '{name}' is disabled")
    if content and content not in found.get("content", "").split(","):
        raise Die(f"storage '{name}' does not support content type '{content}'")
    return found


def place(volid):
    """The path of a volume, and its storage."""
    name, _, rest = volid.partition(":")
    of = storage(name)
    if of["type"] == "lvmthin":
        return f"/dev/{of['vgname']}/{rest}", of
    if of["type"] == "dir":
        return f"{of['path']}/images/{rest}", of
    raise Die(f"the stand-in knows no storage of type {of['type']}")


def lv_exists(of, name):
    return subprocess.run(["lvs", f"{of['vgname']}/{name}"], capture_output=True).returncode == 0


def activate(volid):
    """PVE activates guests' volumes when they are needed (1.2)."""
    path, of = place(volid)
    if of["type"] == "lvmthin":
        name = volid.partition(":")[2]
        done = subprocess.run(["lvchange", "-ay", "-K", f"{of['vgname']}/{name}"], capture_output=True)
        if done.returncode != 0:
            raise Die(f"can't activate LV '{path}':   {done.stderr.decode().strip()}")
        subprocess.run(["udevadm", "settle"], check=False)
    if not os.path.exists(path):
        raise Die(f"volume '{volid}' does not exist")
    return path


def allocate(store, id, size, suffix=""):
    """Makes a volume with the next free name. Returns its name."""
    of = storage(store)
    for number in range(100):
        name = f"vm-{id}-disk-{number}"
        if of["type"] == "lvmthin":
            if lv_exists(of, name):
                continue
            run("lvcreate", "-aly", "-Wy", "--yes", "-V", f"{-(-size // 1024)}k", "--name", name, "--thinpool",
                f"{of['vgname']}/{of['thinpool']}")
            run("udevadm", "settle")
            return f"{store}:{name}"
        if of["type"] == "dir":
            path = f"{of['path']}/images/{id}/{name}.raw"
            if os.path.exists(path):
                continue
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "xb") as out:
                out.truncate(size)
            return f"{store}:{id}/{name}.raw"
        raise Die(f"the stand-in knows no storage of type {of['type']}")
    raise Die(f"unable to allocate an image name for VM {id} in storage '{store}'")


def held(store, id=None):
    """(volume, bytes, guest) of what a storage holds, whether a configuration names it or not."""
    of = storage(store)
    rows = []
    if of["type"] == "lvmthin":
        said = run("lvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "lv_name,lv_size", of["vgname"]).decode()
        for line in said.splitlines():
            name, size = line.split()
            if match := re.fullmatch(r"(?:vm|base)-(\d+)-disk-\d+", name):
                rows.append((f"{store}:{name}", int(size), int(match[1])))
    elif of["type"] == "dir" and os.path.isdir(images := f"{of['path']}/images"):
        for guest in os.listdir(images):
            for name in os.listdir(f"{images}/{guest}"):
                rows.append((f"{store}:{guest}/{name}", os.path.getsize(f"{images}/{guest}/{name}"), int(guest)))
    return [row for row in rows if id is None or row[2] == id]


def free(volid):
    """Removes a volume; one that is missing is silently fine on LVM-thin (2.6)."""
    path, of = place(volid)
    if of["type"] == "lvmthin":
        name = volid.partition(":")[2]
        if lv_exists(of, name):
            run("lvremove", "-f", f"{of['vgname']}/{name}")
    elif os.path.exists(path):
        os.unlink(path)
    else:
        print(f"WARN: disk image '{path}' does not exist", file=sys.stderr)


class Snapshots:
    """Thin snapshots of volumes, which go when this does."""

    def __init__(self, suffix):
        self.suffix, self.made = suffix, []

    def take(self, volid):
        """The device of a snapshot of a volume. PVE names them so (1.2)."""
        path, of = place(volid)
        if of["type"] != "lvmthin":
            raise Die(f"the stand-in takes no snapshot of '{volid}'")
        name = volid.partition(":")[2]
        snap = f"snap_{name}_{self.suffix}"
        run("lvcreate", "-n", snap, "-s", "-kn", f"{of['vgname']}/{name}")
        self.made.append(f"{of['vgname']}/{snap}")
        run("lvchange", "-ay", "-K", f"{of['vgname']}/{snap}")
        run("udevadm", "settle")
        return f"/dev/{of['vgname']}/{snap}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for name in self.made:
            subprocess.run(["lvremove", "-f", name], capture_output=True, check=False)


# What runs ------------------------------------------------------------------------------------------------------------


def running(kind, id):
    if kind == "lxc":
        said = subprocess.run(["lxc-info", "-n", str(id), "-s", "-H"], capture_output=True, text=True)
        return said.stdout.strip() == "RUNNING"
    return os.path.exists(f"{STATE}/qemu-{id}")


def record(what, **fields):
    """A line in the log of starts, on the disk before this returns."""
    os.makedirs(os.path.dirname(STARTS), exist_ok=True)
    words = " ".join(f"{key}={value}" for key, value in fields.items())
    line = f"{time.time():.3f} {time.monotonic():.3f} {what} {words}".rstrip() + "\n"
    with open(STARTS, "a") as out:
        out.write(line)
        out.flush()
        os.fsync(out.fileno())


def digest(path, size=None):
    """SHA-256 of what a disk reads as, up to its size as a guest sees it."""
    hash = hashlib.sha256()
    with open(path, "rb") as data:
        left = size if size is not None else 1 << 62
        while left > 0 and (block := data.read(min(left, 1 << 20))):
            hash.update(block)
            left -= len(block)
    return hash.hexdigest()


def disks(conf):
    """(key, volume, options) of a VM's disks, without CD drives, in the order in which a dump has them."""
    kinds = ["ide", "scsi", "virtio", "sata", "efidisk", "tpmstate"]
    found = []

    def by_kind(key):
        name, number = re.fullmatch(r"([a-z]+)(\d+)", key).groups()
        return kinds.index(name), int(number)

    for key in sorted(filter(DISK_KEY.match, conf), key=by_kind):
        volid, opts = volume(conf[key])
        if opts.get("media") != "cdrom" and volid != "none":
            found.append((key, volid, opts))
    return found


def points(conf):
    """(key, volume, options) of a container's mount points, the root first."""
    found = []
    for key in sorted((k for k in conf if CT_KEY.match(k)), key=lambda k: (k != "rootfs", k)):
        volid, opts = volume(conf[key])
        found.append((key, volid, {"mp": "/", **opts} if key == "rootfs" else opts))
    return found


def userns(conf):
    """What a command is started by so that it runs with the container's user numbers (4.7)."""
    if conf.get("unprivileged") != "1":
        return []
    return ["lxc-usernsexec", "-m", "u:0:100000:65536", "-m", "g:0:100000:65536", "--"]
