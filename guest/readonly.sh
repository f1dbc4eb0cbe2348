# readonly.sh LOWER TAG MOUNT ... -- COMMAND ...
# Runs the command in a mount namespace of its own, where LOWER shows the host's root, and other file systems in it, and
# nothing can be written. TAG is mounted over its /run, so that the command is known by it (topologies/tag.py).
set -e
lower=$1
tag=$2
shift 2
mkdir -p "$lower"
mount --bind / "$lower"
mount -t tmpfs "$tag" "$lower/run"
while [ "$1" != -- ]; do
    mkdir -p "$lower$1"
    mount --bind "$1" "$lower$1"
    mount -o remount,bind,ro "$lower$1"
    shift
done
shift
mount -o remount,bind,ro "$lower/run"
mount -o remount,bind,ro "$lower"
exec "$@"
