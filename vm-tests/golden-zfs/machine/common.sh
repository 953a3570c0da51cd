# Sourced by programs that run as process 1 of a machine on the ZFS hosts' tree (../init).

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
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/lock
