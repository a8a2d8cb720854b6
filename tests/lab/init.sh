#!/bin/bash
# First process of the guest, User Mode Linux or (with MODULES set) Debian's kernel in qemu: mounts, kernel modules, the runner, power off.
# The host's file system is the guest's root, read-only; what the guest writes is on tmpfs, but for $OUT.
# From the kernel's command line: PYTHON, PROJECT, OUT, SCENARIOS, MODULES.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/dev/shm TMPDIR=/dev/shm LC_ALL=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1 SNMP_PERSISTENT_DIR=/dev/shm/net-snmp SNMPCONFPATH=/dev/shm/net-snmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm /dev/pts /run/netns /run/lock /run/out
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
kernel=$(uname -r)
if [ -n "$MODULES" ]; then
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 out /run/out
else
    mount -t hostfs none /run/out -o "$OUT"
fi
mount -t tmpfs tmpfs /lib/modules && ln -s "${MODULES:-/usr/lib/uml/modules/$kernel}" "/lib/modules/$kernel"
# What charon negotiates in the scenarios is loaded beforehand: an SA whose algorithm is found by modprobe comes seconds late.
modprobe -a ipv6 veth af_packet xfrm_user esp4 esp6 ah4 ah6 ipcomp xfrm4_tunnel authenc cbc echainiv deflate \
    sha256_generic sha1_generic aes_generic
[ -z "$MODULES" ] || modprobe -a xfrm_interface nf_tables nft_ct nft_xfrm nfnetlink
ip link set lo up
cd "$PROJECT" && "$PYTHON" -m tests.lab.guest ${SCENARIOS//,/ }
echo "LAB-EXIT $?"
sync
echo o >/proc/sysrq-trigger
sleep 10
