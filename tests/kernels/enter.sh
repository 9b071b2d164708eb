#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# enter.sh ROOT COMMAND...: run a command in another system's tree.
#
# The mounts are in a namespace of this process, so nothing is left of them however it ends. The tree
# is a mount of its own, for what unshares its mounts says so of "/".
set -eu
[ -n "${VXLANE_ENTERED-}" ] || VXLANE_ENTERED=1 exec unshare --mount --propagation private "$0" "$@"
unset VXLANE_ENTERED
root=$1
shift
mount --bind "$root" "$root"
for name in proc sys dev; do mount --rbind "/$name" "$root/$name"; done
for name in run tmp; do mount -t tmpfs -o mode=1777 none "$root/$name"; done
cp /etc/resolv.conf "$root/etc/resolv.conf"
exec chroot "$root" "$@"
