#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=dash
# The first process of a virtual machine: find the disk, put the checkout there, go on from it.
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
for _ in 1 2 3 4 5 6 7 8 9 10; do
	[ -b /dev/vda ] && break
	sleep 1
done
mount -t ext4 /dev/vda /root || { echo "@@ status no disk"; poweroff -f; }
for name in /root/vxlane/* /root/vxlane/.ci; do rm -rf "$name"; done
tar -xf /checkout.tar -C /root/vxlane
cp /guest.sh /job.sh /root/
mount -o move /dev /root/dev
exec switch_root /root /bin/sh /guest.sh
