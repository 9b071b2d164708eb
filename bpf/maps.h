/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every map, once. The loader makes and pins them: they outlive who loaded the programs, and a
 * new agent or a new build takes them over. MAX_... are sizes that a node may have its own of. */
#ifndef VXLANE_MAPS_H
#define VXLANE_MAPS_H

#ifndef BPF_F_TABLE
#include "editor.h"
#endif

#include "vxlane.h"

#define PINNED BPF_F_TABLE

/* A stamp has 16 bits. Each CPU writes its notes in turn into a part of its own, so that they stay
 * in its cache: drawn by chance out of all, an eighth of an entrance's time was the wait for a
 * line. With more CPUs than there are parts, some share one. */
#define NOTES 16384
#define NOTES_OF_A_CPU 512 /* 29 kB */

PINNED("array", __u32, struct settings, settings, 1, 0);
PINNED("lpm_trie", struct cidr, struct peer, peers, MAX_PEERS, BPF_F_NO_PREALLOC);
PINNED("hash", struct address, __u32, vteps, MAX_PEERS, BPF_F_NO_PREALLOC);
PINNED("hash", struct address, struct pod, pods, MAX_PODS, BPF_F_NO_PREALLOC);
/* Veth -> an address of the pod behind it. An LRU: an entry may outlive its veth. */
PINNED("lru_hash", __u32, struct address, interfaces, MAX_PODS, 0);
/* The veths of those pods, by ifindex. A devmap, for the kernel itself takes a device out of it
 * before the ifindex can be another's. In truth a devmap_hash, for which bcc has no word: the
 * loader knows. */
PINNED("devmap", __u32, __u32, veths, MAX_PODS, 0);
PINNED("lru_hash", struct flow_key, struct flow, flows, MAX_FLOWS, 0);
/* A translated flow as a peer sends it -> the key of its record. A flow is translated on its
 * client's node alone, and most are not at all: the loader makes it a quarter as large. */
PINNED("lru_hash", struct flow_key, struct flow_key, translations, MAX_TRANSLATIONS, 0);
/* The record that an exit is making. With the headers it would not fit on the stack. */
PINNED("percpu_array", __u32, struct flow, drafts, 1, 0);
/* Packets on their way through the kernel path, by the stamp that they carry. A note that another
 * packet overwrites is one that teaches nothing: the comparison at the exit fails. */
PINNED("array", __u32, struct note, notes, NOTES + 1, 0);
/* How many notes each CPU has written. */
PINNED("percpu_array", __u32, __u64, turns, 1, 0);
/* Flows that a RST ended after a bypass, until the agent has told conntrack. */
PINNED("hash", struct flow_key, struct reset, resets, MAX_FLOWS, BPF_F_NO_PREALLOC);
PINNED("percpu_array", __u32, struct counter, counters, PROGRAM_COUNT *VERDICT_COUNT, 0);
PINNED("percpu_array", __u32, struct peer_counter, peer_counters, MAX_PEERS, 0);
/* The place of the tracer (trace.c), empty while nobody looks. Its index is a constant in the
 * programs, so on x86 the empty place is a no-op of the JIT. */
PINNED("prog", __u32, __u32, tracer, 1, 0);

#endif
