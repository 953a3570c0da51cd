# Sourced by the scripts that run as process 1 of a User Mode Linux on the golden host's tree (hostfs).
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root

finish() {
    local status=$?
    # The last line tells the verdict: UML's own exit status does not.
    if [ "$status" = 0 ]; then echo "golden: done"; else echo "golden: failed with status $status"; fi
    sync
    poweroff -ff
}
trap finish EXIT
set -eEuo pipefail
trap 'echo "golden: line $LINENO failed: $BASH_COMMAND"' ERR

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t hostfs -o /usr/lib/uml/modules none /lib/modules
mkdir -p /run/lock
/lib/systemd/systemd-udevd --daemon
udevadm trigger --type=subsystems --action=add
udevadm trigger --type=devices --action=add
udevadm settle
for module in dm_mod dm_thin_pool ext4 vfat nls_cp437 nls_iso8859-1 nls_ascii xfs; do modprobe -q "$module" || true; done

# udevd holds the disk open for a moment after each change.
reread_partitions() {
    local try
    for try in 1 2 3 4 5 6 7 8 9 10; do
        udevadm settle
        if blockdev --rereadpt "$1"; then udevadm settle; return 0; fi
        sleep 1
    done
    return 1
}

# What the scripts that make hosts share. A host's filesystems are mounted at $target.
target=/run/target

# Puts the tree (tar on the hostfs directory $golden_work) into $target.
unpack_tree() {
    mkdir -p /run/work
    mount -t hostfs -o "$golden_work" none /run/work
    tar -C $target --numeric-owner --xattrs --xattrs-include='*' --acls -xpf /run/work/tree.tar
    umount /run/work
}

enter_target() {
    local dir
    for dir in proc sys dev run; do mount --rbind /$dir $target/$dir; done
}

leave_target() {
    local dir
    for dir in run dev sys proc; do umount -R -l $target/$dir; done
}

in_target() { chroot $target "$@"; }

# The initramfs with what the host's storage needs, from the tree's own modules and not from those of User Mode Linux.
make_initramfs() {
    in_target update-initramfs -u -k all
}

# UUID of what a device holds.
uuid_of() { blkid -p -s UUID -o value "$1"; }
