# qemu.sh TAG POINT yes|no COMMAND ...
# Runs QEMU in namespaces of its own: marked by TAG, which is mounted on POINT (topologies/tag.py), and, if it shall
# have network devices, with two taps and a route between them. All of it is gone with QEMU.
set -e
mount -t tmpfs "$1" "$2"
if [ "$3" = yes ]; then
    ip tuntap add dev tap0 mode tap multi_queue
    ip tuntap add dev tap1 mode tap
    for number in 0 1; do
        ip addr add 10.9.$number.1/24 dev tap$number
        ip link set tap$number up
    done
    echo 1 >/proc/sys/net/ipv4/ip_forward
fi
shift 3
exec "$@"
