/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A stand-in for what bcc and the loader provide. With it an editor, clangd or
 * `clang -fsyntax-only` reads every file here alone, with no step before. With
 * bcc, which defines BPF_F_TABLE, nothing of this file is compiled. */
#ifndef VXLANE_EDITOR_H
#define VXLANE_EDITOR_H

#include <linux/bpf.h>

#define MAX_PEERS 16384
#define MAX_PODS 1024
#define MAX_FLOWS 262144
#define MAX_TRANSLATIONS 65537
#define RING_PAGES 64

#define BPF_F_TABLE(type, key, leaf, name, size, flags) \
	struct {                                        \
		leaf *(*lookup)(key *);                 \
		long (*update)(key *, leaf *);          \
		long (*delete)(key *);                  \
		void (*call)(struct __sk_buff *, int);  \
	} name

#define BPF_ARRAY(name, leaf, size)            \
	struct {                               \
		leaf *(*lookup)(int *);        \
		void (*atomic_increment)(int); \
	} name

#define BPF_RINGBUF_OUTPUT(name, pages)                \
	struct {                                       \
		void *(*ringbuf_reserve)(__u64);       \
		void (*ringbuf_submit)(void *, __u64); \
	} name

__u64 bpf_pseudo_fd(__u64 source, __u64 number);
__u64 bpf_ktime_get_ns(void);
__u64 bpf_ktime_get_coarse_ns(void);
__u32 bpf_get_prandom_u32(void);
__u32 bpf_get_smp_processor_id(void);
long bpf_skb_load_bytes(const struct __sk_buff *skb, __u32 offset, void *to, __u32 size);
long bpf_skb_store_bytes(struct __sk_buff *skb, __u32 offset, const void *from, __u32 size,
			 __u64 flags);
long bpf_l4_csum_replace(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags);
long bpf_skb_adjust_room(struct __sk_buff *skb, __s32 bytes, __u32 mode, __u64 flags);
long bpf_fib_lookup(struct __sk_buff *skb, struct bpf_fib_lookup *params, int size, __u32 flags);
long bpf_redirect_peer(__u32 ifindex, __u64 flags);
long bpf_clone_redirect(struct __sk_buff *skb, __u32 ifindex, __u64 flags);
long bpf_csum_level(struct __sk_buff *skb, __u64 level);
long bpf_set_hash(struct __sk_buff *skb, __u32 hash);
long bpf_skb_change_type(struct __sk_buff *skb, __u32 type);

#endif
