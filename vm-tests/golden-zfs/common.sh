# Sourced by the scripts that run as process 1 of a machine on the ZFS hosts' tree, which is read-only.
export PATH=/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C HOME=/root

finish() {
    local status=$?
    if [ "$status" = 0 ]; then echo "golden: done"; else echo "golden: failed with status $status"; fi
    sync
    # Lets the last line get out of the serial port.
    sleep 1
    poweroff -ff
}
set -eEuo pipefail
trap finish EXIT
trap 'echo "golden: line $LINENO failed: $BASH_COMMAND"' ERR

mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/lock
modprobe 9pnet_virtio
mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=1048576 share /mnt
