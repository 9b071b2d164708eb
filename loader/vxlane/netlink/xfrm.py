# SPDX-License-Identifier: Apache-2.0
"""IPsec's netlink numbers under the kernel's own names: linux/netlink.h, linux/xfrm.h. Pure."""

from __future__ import annotations

NETLINK_XFRM = 6
XFRMNLGRP_SA, XFRMNLGRP_POLICY = 3, 4
