/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What differs between nodes and never changes while the programs stand. It is no part of what is
 * compiled, so that programs compiled elsewhere fit every node: each use is an instruction that
 * loads a number, and the loader writes the number (loader/vxlane/datapath/load.py). The verifier
 * knows it then, and takes out the branches that it rules out. */
#ifndef VXLANE_NODE_H
#define VXLANE_NODE_H

#ifndef BPF_F_TABLE
#include "editor.h"
#endif

#include "vxlane.h"

/* As 64 bits: compared with less, the number would first be cut by two instructions more. */
#define OF_NODE(constant) bpf_pseudo_fd(MARK_OF_NODE, constant)
#define VXLAN_PORT OF_NODE(NODE_PORT)
#define VXLAN_VNI OF_NODE(NODE_VNI)
#define STRICT OF_NODE(NODE_STRICT)
#define DECAP_L4_UDP OF_NODE(NODE_DECAP_L4_UDP)
#define PEER_TAKES_AS_HOST OF_NODE(NODE_PEER_TAKES_AS_HOST)

#endif
