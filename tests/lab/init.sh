#!/bin/bash
# First process of the User Mode Linux guest: mounts, kernel modules, the runner, power off.
# The host's file system is the guest's root, read-only; what the guest writes is on tmpfs, but for $OUT.
# From the kernel's command line: PYTHON, PROJECT, OUT, SCENARIOS.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/dev/shm TMPDIR=/dev/shm LC_ALL=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1 SNMP_PERSISTENT_DIR=/dev/shm/net-snmp SNMPCONFPATH=/dev/shm/net-snmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /dev/shm /dev/pts /run/netns /run/lock /run/out
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t hostfs none /run/out -o "$OUT"
kernel=$(uname -r)
mount -t tmpfs tmpfs /lib/modules && ln -s "/usr/lib/uml/modules/$kernel" "/lib/modules/$kernel"
# What charon negotiates in the scenarios is loaded beforehand: an SA whose algorithm is found by modprobe comes seconds late.
modprobe -a ipv6 veth af_packet xfrm_user esp4 esp6 ah4 ah6 ipcomp xfrm4_tunnel authenc cbc echainiv deflate \
    sha256_generic sha1_generic aes_generic
ip link set lo up
cd "$PROJECT" && "$PYTHON" -m tests.lab.guest ${SCENARIOS//,/ }
echo "LAB-EXIT $?"
sync
echo o >/proc/sysrq-trigger
sleep 10
