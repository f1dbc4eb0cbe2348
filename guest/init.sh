#!/bin/busybox sh
# The guest's first pid 1: loads what reaches the host's files, lays an overlay over them, and goes over to session.sh.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
. /guest/orders  # MARK, MODULES, RESULTS, and more; as arguments, what of the lab lies in /tmp or /run
lost() { echo "guest: $*" >/dev/ttyS0; poweroff -f; }

case " $(cat /proc/cmdline) " in *" fastsocket_lab_try "*)  # does this way of running guests work at all?
    echo "$MARK up" >/dev/ttyS0
    poweroff -f
esac

for module in /modules/*.ko; do
    [ ! -e "$module" ] || insmod "$module" || lost "the module $module was refused"
done
mount -t virtiofs -o ro host /lower || lost "the host's files cannot be mounted"
mount -t tmpfs -o size=90% upper /upper
overlay() {
    mkdir -p "/upper/$1" "/upper/$1-work" "/root$2"
    mount -t overlay -o "lowerdir=/lower$2,upperdir=/upper/$1,workdir=/upper/$1-work" overlay "/root$2" ||
        lost "no overlay over $2/"
}
overlay files ""
mkdir -p /root/proc /root/sys /root/dev /root/run /root/tmp
mount -t tmpfs -o mode=755 run /root/run
mount -t tmpfs -o mode=1777,size=80% tmp /root/tmp
for kept; do
    overlay "kept-$((number += 1))" "$kept"
done
mkdir -p "/root$RESULTS"
mount -t virtiofs results "/root$RESULTS" || lost "the results folder cannot be mounted"
cp -r /guest /bin/busybox /root/run/
mount --move /proc /root/proc
mount --move /sys /root/sys
mount --move /dev /root/dev
exec switch_root /root /bin/sh /run/guest/session.sh
