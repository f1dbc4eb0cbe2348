# pid 1 on the guest's own root: makes it a machine as after a boot, runs the command, and says how that ended.
. /run/guest/orders
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
exec </dev/null >/dev/ttyS0 2>&1
mkdir -p /dev/pts /dev/shm /run/netns /run/lock /lib/modules
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
[ -z "$MODULES" ] || mount --bind "$MODULES" /lib/modules
/run/busybox hostname guest
ip link set lo up
if [ -n "$NETWORK" ]; then  # each device is the only way to the other, and that way is outside of the guest
    modprobe virtio_net
    ip addr add 10.9.0.2/24 dev eth0
    ip link set eth0 up
    ip route add 10.9.1.0/24 via 10.9.0.1
    ip netns add client
    ip link set eth1 netns client
    ip -n client link set lo up
    ip -n client addr add 10.9.1.2/24 dev eth1
    ip -n client link set eth1 up
    ip -n client route add 10.9.0.0/24 via 10.9.1.1
fi
ulimit -n 20000  # HAProxy sizes its tables by it
ulimit -c 0

exec 3<>/dev/hvc0  # a virtual console forgets its settings when nothing has it open
exec 4<>/dev/hvc1
/run/busybox stty $TERMINAL <&3
/run/busybox stty -opost <&4
echo
echo "$MARK up"
if [ -n "$INTERACTIVE" ]; then
    /run/busybox setsid -c /bin/sh /run/guest/command <&3 >&3 2>&3 3>&- 4>&-
else
    /run/busybox setsid /bin/sh /run/guest/command </dev/null >&3 2>&4 3>&- 4>&-
fi
status=$?
# The settings change when all output is written (tcsetattr(3), TCSADRAIN): nothing of it is lost when the machine ends.
/run/busybox stty -echo <&3
/run/busybox stty -echo <&4
sync
echo 1 >/proc/sys/kernel/printk  # no message of the kernel shall break the last line
echo
echo "$MARK $status"
/run/busybox stty -echo </dev/ttyS0
exec /run/busybox poweroff -f
