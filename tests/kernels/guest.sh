#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The only process that a virtual machine starts: what a machine has that boots, then the job.
# Lines that begin with @@ are read by machine.py.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for name in run tmp; do mount -t tmpfs -o mode=1777 none "/$name"; done
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts
mount -t tmpfs -o mode=1777 none /dev/shm
ip link set lo up
hostname guest
# Bridges hand packets to netfilter, as on every node of a cluster.
modprobe br_netfilter
cd /vxlane || exit 1
echo "@@ kernel $(uname -r)"
echo "@@ bcc $(.venv/bin/python -c 'import bcc; print(bcc.__version__)')"
echo "@@ python $(.venv/bin/python -c 'import platform; print(platform.python_version())')"
echo "@@ iproute2 $(ip -V | sed 's/.*iproute2-//; s/,.*//')"
sh /job.sh
echo "@@ status $?"
echo o >/proc/sysrq-trigger
sleep 60
