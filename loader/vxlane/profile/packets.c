/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Follows packets of this node through the kernel while `vxlane profile` runs.
 *
 * A packet is an skb: noted where it comes from a pod or a NIC, and taken out where it gets to.
 * What another device saw in between took the kernel path, what none saw was bypassed. tracing.py
 * attaches each function at_X() to the raw tracepoint X, and defines what is in capitals and not an
 * enum of the kernel's: where members stand in the kernel's structs (btf.py), and legs.py's
 * numbers.
 */
#include <asm/byteorder.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>

/* An skb on its way. */
struct flight {
	u64 began; /* ns, CLOCK_MONOTONIC */
	u32 bytes; /* as it was seen first, without its link header */
	u16 segments;
	u8 origin;
	u8 path;
};

struct sum {
	u64 packets;
	u64 bytes;
	u64 segments;
	u64 longest; /* ns */
};

struct retransmit {
	__be32 remote;
	u32 is_syn;
	u32 netns;
};

BPF_TABLE("lru_hash", u64, struct flight, flights, 32768);
BPF_TABLE("hash", u32, u32, devices, MAX_DEVICES); /* ifindex -> place */
BPF_TABLE("hash", __be32, u32, pods, MAX_PODS);
BPF_TABLE("lru_hash", struct retransmit, u64, retransmits, 4096);
BPF_TABLE("lru_hash", u32, u32, namespaces, 4096); /* inode numbers of pods' */

/* By leg and path; the first two by slot too. */
BPF_TABLE("percpu_array", u32, u64, latencies, LEGS *PATHS *SLOTS);
BPF_TABLE("percpu_array", u32, u64, sizes, LEGS *PATHS *SLOTS);
BPF_TABLE("percpu_array", u32, struct sum, sums, LEGS *PATHS);

static __always_inline u64 read_u64(const char *at)
{
	u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

static __always_inline u32 read_u32(const char *at)
{
	u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

static __always_inline u16 read_u16(const char *at)
{
	u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

static __always_inline u8 read_u8(const char *at)
{
	u8 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

static __always_inline const char *read_pointer(const char *at)
{
	return (const char *)read_u64(at);
}

/* Of a device's or a socket's pointer to it. */
static __always_inline u32 netns_of(const char *at)
{
	return read_u32(read_pointer(at) + NET_NS_INUM);
}

static __always_inline u32 place_of(const char *skb)
{
	const char *device = read_pointer(skb + SK_BUFF_DEV);
	u32 ifindex = read_u32(device + NET_DEVICE_IFINDEX);
	u32 *place;

	if (netns_of(device + NET_DEVICE_ND_NET) != NETNS)
		return PLACE_BETWEEN;
	place = devices.lookup(&ifindex);
	return place ? *place : PLACE_BETWEEN;
}

/* Did it come to a profiled pod? Its headers are as the pod sees them by now. */
static __always_inline int is_at_end(const char *skb, u32 protocol)
{
	const char *ip = read_pointer(skb + SK_BUFF_HEAD) + read_u16(skb + SK_BUFF_NETWORK_HEADER);
	__be32 destination = read_u32(ip + __builtin_offsetof(struct iphdr, daddr));

	if (read_u8(ip + __builtin_offsetof(struct iphdr, protocol)) != protocol)
		return 0;
	return pods.lookup(&destination) != 0;
}

/* Four slots to each power of two; legs.py has their bounds. */
static __always_inline u32 slot_of(u64 value)
{
	u64 rest = value;
	u32 power = 0;
	u32 slot;

#pragma unroll
	for (u32 bits = 32; bits; bits /= 2) {
		if (rest >> bits) {
			rest >>= bits;
			power += bits;
		}
	}
	slot = power < 2 ? value : (power - 1) * 4 + ((value >> (power - 2)) & 3);
	return slot < SLOTS ? slot : SLOTS - 1;
}

static __always_inline void forget(const char *skb)
{
	u64 key = (u64)skb;

	flights.delete(&key);
}

static __always_inline int is_ipv4(const char *skb)
{
	return read_u16(skb + SK_BUFF_PROTOCOL) == __constant_htons(ETH_P_IP);
}

/* Did a socket of the device's own namespace send it? Then it comes from nowhere else. */
static __always_inline int is_born(const char *skb)
{
	const char *sk = read_pointer(skb + SK_BUFF_SK);
	const char *device = read_pointer(skb + SK_BUFF_DEV);

	return sk && read_pointer(sk + SOCK_SKC_NET) == read_pointer(device + NET_DEVICE_ND_NET);
}

static __always_inline void begin(const char *skb, u32 origin)
{
	const char *shared = read_pointer(skb + SK_BUFF_HEAD) + read_u32(skb + SK_BUFF_END);
	u16 segments = read_u16(shared + SKB_SHARED_INFO_GSO_SEGS);
	struct flight flight = {
		.began = bpf_ktime_get_ns(),
		.bytes = read_u32(skb + SK_BUFF_LEN),
		.segments = segments ? segments : 1,
		.origin = origin,
		.path = PATH_BYPASS,
	};
	u64 key = (u64)skb;

	flights.update(&key, &flight);
}

static __always_inline void pass(const char *skb)
{
	u64 key = (u64)skb;
	struct flight *flight = flights.lookup(&key);

	if (flight)
		flight->path = PATH_KERNEL;
}

static __always_inline void count(const struct flight *flight, u32 leg)
{
	u64 took = bpf_ktime_get_ns() - flight->began;
	u32 row = leg * PATHS + flight->path;
	u32 at = row * SLOTS + slot_of(took);
	u64 *packets = latencies.lookup(&at);
	struct sum *sum;

	if (packets)
		*packets += 1;
	at = row * SLOTS + slot_of(flight->bytes);
	packets = sizes.lookup(&at);
	if (packets)
		*packets += 1;
	sum = sums.lookup(&row);
	if (!sum)
		return;
	sum->packets += 1;
	sum->bytes += flight->bytes;
	sum->segments += flight->segments;
	if (sum->longest < took)
		sum->longest = took;
}

/* Take the note out, and answer whether there was one. */
static __always_inline int take(const char *skb, struct flight *flight)
{
	u64 key = (u64)skb;
	struct flight *found = flights.lookup(&key);

	if (!found)
		return 0;
	*flight = *found;
	flights.delete(&key);
	return 1;
}

static __always_inline void enter_socket(const char *skb, u32 protocol, u32 from_pod, u32 from_nic)
{
	struct flight flight;

	if (take(skb, &flight) && is_at_end(skb, protocol))
		count(&flight, flight.origin == PLACE_POD ? from_pod : from_nic);
}

/* A veth hands a packet over with its socket. */
static __always_inline void note_netns(const char *skb)
{
	const char *sk = read_pointer(skb + SK_BUFF_SK);
	u32 netns, known = 1;

	if (!sk)
		return;
	netns = netns_of(sk + SOCK_SKC_NET);
	if (!namespaces.lookup(&netns))
		namespaces.update(&netns, &known);
}

int at_netif_receive_skb(struct bpf_raw_tracepoint_args *ctx)
{
	const char *skb = (const char *)ctx->args[0];
	u32 place = place_of(skb);

	if (place == PLACE_POD)
		note_netns(skb);
	if (place == PLACE_BETWEEN)
		pass(skb);
	else if (is_ipv4(skb))
		begin(skb, place);
	else
		forget(skb);
	return 0;
}

int at_net_dev_queue(struct bpf_raw_tracepoint_args *ctx)
{
	const char *skb = (const char *)ctx->args[0];
	struct flight flight;

	if (is_born(skb))
		forget(skb);
	else if (place_of(skb) != PLACE_NIC)
		pass(skb);
	else if (take(skb, &flight) && flight.origin == PLACE_POD && is_ipv4(skb))
		count(&flight, LEG_POD_TO_NIC);
	return 0;
}

/* An established connection's packet is about to be judged by TCP. */
int at_tcp_probe(struct bpf_raw_tracepoint_args *ctx)
{
	enter_socket((const char *)ctx->args[1], IPPROTO_TCP, LEG_POD_TO_TCP, LEG_NIC_TO_TCP);
	return 0;
}

/* Of any protocol's socket: something was put at the end of its queue. */
int at_sk_data_ready(struct bpf_raw_tracepoint_args *ctx)
{
	const char *sk = (const char *)ctx->args[0];

	enter_socket(read_pointer(sk + SOCK_SK_RECEIVE_QUEUE_PREV), IPPROTO_UDP, LEG_POD_TO_UDP,
		     LEG_NIC_TO_UDP);
	return 0;
}

/* The next packet may have the same address. TCP and UDP free some packets without either of these,
 * so begin() and is_born() heed that too. */
int at_kfree_skb(struct bpf_raw_tracepoint_args *ctx)
{
	forget((const char *)ctx->args[0]);
	return 0;
}

int at_consume_skb(struct bpf_raw_tracepoint_args *ctx)
{
	forget((const char *)ctx->args[0]);
	return 0;
}

static __always_inline void count_retransmit(const char *sk, const char *skb)
{
	__be32 local = read_u32(sk + SOCK_SKC_RCV_SADDR);
	struct retransmit key = {
		.remote = read_u32(sk + SOCK_SKC_DADDR),
		.is_syn = read_u8(sk + SOCK_SKC_STATE) == 2, /* TCP_SYN_SENT */
		.netns = netns_of(sk + SOCK_SKC_NET),
	};
	/* Of a super-packet as many as the kernel adds to RetransSegs. */
	u64 segments = read_u16(skb + SK_BUFF_CB + TCP_SKB_CB_TCP_GSO_SEGS);
	u64 *known;

	if (!pods.lookup(&local))
		return;
	known = retransmits.lookup(&key);
	if (known)
		lock_xadd(known, segments);
	else
		retransmits.update(&key, &segments);
}

/* Since Linux 6.17 it tells of those too that were not sent, with an error: as a rule the packet
 * was still in a queue of this node. */
int at_tcp_retransmit_skb(struct bpf_raw_tracepoint_args *ctx)
{
	if (!(int)ctx->args[2])
		count_retransmit((const char *)ctx->args[0], (const char *)ctx->args[1]);
	return 0;
}

int at_tcp_retransmit_skb_without_error(struct bpf_raw_tracepoint_args *ctx)
{
	count_retransmit((const char *)ctx->args[0], (const char *)ctx->args[1]);
	return 0;
}
