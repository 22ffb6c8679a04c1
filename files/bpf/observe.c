/* SPDX-License-Identifier: GPL-2.0-only OR GPL-3.0-or-later
 * Copyright: (c) 2026, impair.testbed contributors
 *
 * Probes: requests over TCP as they pass the client's interface (`leaving`, `arriving`, for clsact), retransmitted
 * segments (`retransmitted`) and system calls (`entered`, `left`, all three for raw tracepoints). What they see they count in
 * maps, by the service's port and by the call's number; nothing is held up or changed.
 *
 * A request starts with the first new byte out, and is answered by the first new byte in. Bytes that are sent again are no
 * new request, and bytes that come again no answer.
 *
 * Where the kernel's structures have their members, BTF says (module_utils/observer/places.py): no relocations are needed.
 *
 * clang -O2 -g -target bpf -mcpu=v3 -c observe.c
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#define SEC(name) __attribute__((section(name), used))
#define inline inline __attribute__((always_inline))
#define NUMBER(name, value) int(*name)[value]
#define TYPE(name, value) value *name

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define network16(value) ((__u16)__builtin_bswap16(value))
#define network32(value) ((__u32)__builtin_bswap32(value))
#else
#define network16(value) ((__u16)(value))
#define network32(value) ((__u32)(value))
#endif

#define INET6 10 /* AF_INET6 */
#define SLOTS 256
#define CALLS 512
#define OTHER 0 /* in the place of a port */

static void *(*bpf_map_lookup_elem)(const void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_map_update_elem)(const void *map, const void *key, const void *value, __u64 flags) =
	(void *)BPF_FUNC_map_update_elem;
static long (*bpf_map_delete_elem)(const void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*bpf_probe_read_kernel)(void *to, __u32 size, const void *from) = (void *)BPF_FUNC_probe_read_kernel;
static __u64 (*bpf_get_current_task)(void) = (void *)BPF_FUNC_get_current_task;
static __u64 (*bpf_get_current_pid_tgid)(void) = (void *)BPF_FUNC_get_current_pid_tgid;
static long (*bpf_get_ns_current_pid_tgid)(__u64 device, __u64 inode, struct bpf_pidns_info *to, __u32 size) =
	(void *)BPF_FUNC_get_ns_current_pid_tgid;

/* Nanoseconds; slots: see slot(). */
struct histogram {
	__u64 count, sum, slots[SLOTS];
};

/* What is seen, and where the kernel has its members (bytes). */
struct limits {
	__u64 pid_device, pid_inode; /* of the PID namespace that `observer` and `processes` are numbered in */
	__u32 network;               /* inode of the network namespace */
	__u32 observer;              /* our own process, which is not seen */
	__u32 chosen;                /* 1: only calls of `processes` are seen */
	__u32 any_port;              /* 1: all services that a connection is opened to; 0: those that stand in `services` */
	__u32 any_address;
	__u32 task_nsproxy, nsproxy_net, net_inum;
	__u32 sock_net, sock_family, sock_port, sock_remote_port, sock_local, sock_remote, sock_local6, sock_remote6;
	__u32 skb_segments;
	__u32 spare;
	__u8 address[16]; /* of either end; IPv4's as ::ffff:… */
};

struct service {
	struct histogram latency;
	__u64 bytes_out, bytes_in; /* each byte of the streams once */
	__u64 again;               /* segments that left a second time, as seen here */
	__u64 retransmitted;       /* segments that the kernel says it sends again */
};

struct flow {
	__u8 remote[16], local[16];
	__u16 remote_port, local_port; /* in network order, as in the packet */
};

struct state {
	__u64 started; /* 0: no answer is awaited */
	__u32 sent, got, has_sent, has_got;
};

struct call {
	__u64 started;
	__u64 number;
};

struct segment {
	struct flow flow;
	__u32 sequence, length, opens;
};

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct limits);
} limits SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 256);
	TYPE(key, __u32);
	TYPE(value, struct service);
} services SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, struct service);
} nothing SEC(".maps"); /* what a service begins with: too much for a program's stack */

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 65536);
	TYPE(key, struct flow);
	TYPE(value, struct state);
} flows SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_HASH);
	NUMBER(max_entries, 1024);
	TYPE(key, __u32);
	TYPE(value, __u32);
} processes SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	NUMBER(max_entries, 16384);
	TYPE(key, __u64);
	TYPE(value, struct call);
} under_way SEC(".maps");

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, CALLS);
	TYPE(key, __u32);
	TYPE(value, struct histogram);
} calls SEC(".maps");

static inline struct limits *asked(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&limits, &first);
}

/* Four slots to each power of two: its number, then the two bits behind the first one. */
static inline __u32 slot(__u64 value)
{
	__u32 power = 0;

	if (value < 4)
		return value;
#define HALF(bits) \
	if (value >> (power + bits)) \
		power += bits;
	HALF(32)
	HALF(16)
	HALF(8)
	HALF(4)
	HALF(2)
	HALF(1)
	return power << 2 | (value >> (power - 2) & 3);
}

static inline void note(struct histogram *histogram, __u64 nanoseconds)
{
	__u32 at = slot(nanoseconds) & (SLOTS - 1);

	__sync_fetch_and_add(&histogram->count, 1);
	__sync_fetch_and_add(&histogram->sum, nanoseconds);
	__sync_fetch_and_add(&histogram->slots[at], 1);
}

static inline int same(const __u8 *one, const __u8 *other)
{
	const __u32 *left = (const __u32 *)one, *right = (const __u32 *)other;

	return left[0] == right[0] && left[1] == right[1] && left[2] == right[2] && left[3] == right[3];
}

static inline void map4(__u8 *to, __u32 address)
{
	__u32 *words = (__u32 *)to;

	words[0] = words[1] = 0;
	words[2] = network32(0xffff);
	words[3] = address;
}

/* ---- Requests, at the client's interface ---- */

/* Of TCP over Ethernet; -1: anything else. The end that is not ours is `remote`. */
static inline int parse(struct __sk_buff *skb, struct segment *segment, const int out)
{
	struct flow *flow = &segment->flow;
	__u8 *source = out ? flow->local : flow->remote, *destination = out ? flow->remote : flow->local;
	__u32 at, end;
	struct tcphdr tcp;

	if (skb->protocol == network16(ETH_P_IP)) {
		struct iphdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip) || ip.protocol != IPPROTO_TCP ||
		    ip.frag_off & network16(0x1fff))
			return -1;
		map4(source, ip.saddr);
		map4(destination, ip.daddr);
		at = ETH_HLEN + ip.ihl * 4;
		end = ip.tot_len ? ETH_HLEN + network16(ip.tot_len) : skb->len; /* 0: longer than it can say */
	} else if (skb->protocol == network16(ETH_P_IPV6)) {
		struct ipv6hdr ip;

		if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof ip) || ip.nexthdr != IPPROTO_TCP)
			return -1;
		__builtin_memcpy(source, &ip.saddr, 16);
		__builtin_memcpy(destination, &ip.daddr, 16);
		at = ETH_HLEN + sizeof ip;
		end = ip.payload_len ? at + network16(ip.payload_len) : skb->len;
	} else {
		return -1;
	}
	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof tcp))
		return -1;
	at += tcp.doff * 4;
	flow->remote_port = out ? tcp.dest : tcp.source;
	flow->local_port = out ? tcp.source : tcp.dest;
	segment->sequence = network32(tcp.seq);
	segment->length = end > at ? end - at : 0;
	segment->opens = tcp.syn && !tcp.ack;
	return 0;
}

static inline struct service *service_of(const struct limits *limits, __u32 port, const int opens)
{
	struct service *found = bpf_map_lookup_elem(&services, &port);

	if (!found && limits->any_port && opens) {
		__u32 first = 0;
		struct service *begin = bpf_map_lookup_elem(&nothing, &first);

		if (begin)
			bpf_map_update_elem(&services, &port, begin, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&services, &port);
	}
	return found;
}

SEC("tc/leaving") int leaving(struct __sk_buff *skb)
{
	struct limits *limits = asked();
	struct segment segment = {};

	if (!limits || parse(skb, &segment, 1))
		return TC_ACT_UNSPEC;
	if (!limits->any_address && !same(limits->address, segment.flow.remote) &&
	    !same(limits->address, segment.flow.local))
		return TC_ACT_UNSPEC;
	struct service *service = service_of(limits, network16(segment.flow.remote_port), segment.opens);
	if (!service)
		return TC_ACT_UNSPEC;
	struct state *state = bpf_map_lookup_elem(&flows, &segment.flow);
	if (!state || segment.opens) {
		struct state begin = {};

		if (!segment.opens && (limits->any_port || !segment.length))
			return TC_ACT_UNSPEC;
		bpf_map_update_elem(&flows, &segment.flow, &begin, BPF_ANY);
		state = bpf_map_lookup_elem(&flows, &segment.flow);
	}
	if (!state || !segment.length)
		return TC_ACT_UNSPEC;
	__u32 end = segment.sequence + segment.length;
	if (state->has_sent && (__s32)(end - state->sent) <= 0) {
		__sync_fetch_and_add(&service->again, skb->gso_segs ? skb->gso_segs : 1);
		return TC_ACT_UNSPEC;
	}
	__u32 fresh = state->has_sent ? end - state->sent : segment.length;
	state->sent = end;
	state->has_sent = 1;
	__sync_fetch_and_add(&service->bytes_out, fresh < segment.length ? fresh : segment.length);
	if (!state->started)
		state->started = bpf_ktime_get_ns();
	return TC_ACT_UNSPEC;
}

SEC("tc/arriving") int arriving(struct __sk_buff *skb)
{
	struct limits *limits = asked();
	struct segment segment = {};

	if (!limits || parse(skb, &segment, 0) || !segment.length)
		return TC_ACT_UNSPEC;
	__u32 port = network16(segment.flow.remote_port);
	struct state *state = bpf_map_lookup_elem(&flows, &segment.flow);
	struct service *service = bpf_map_lookup_elem(&services, &port);
	if (!state || !service)
		return TC_ACT_UNSPEC;
	__u32 end = segment.sequence + segment.length;
	if (state->has_got && (__s32)(end - state->got) <= 0)
		return TC_ACT_UNSPEC;
	__u32 fresh = state->has_got ? end - state->got : segment.length;
	state->got = end;
	state->has_got = 1;
	__sync_fetch_and_add(&service->bytes_in, fresh < segment.length ? fresh : segment.length);
	__u64 started = state->started;
	if (started) {
		state->started = 0;
		note(&service->latency, bpf_ktime_get_ns() - started);
	}
	return TC_ACT_UNSPEC;
}

/* ---- The kernel's own events ---- */

#define read_at(to, from, offset) bpf_probe_read_kernel(&(to), sizeof(to), (const void *)((from) + (offset)))

static inline int is_of_network(const struct limits *limits, __u64 network)
{
	__u32 inode = 0;

	return !read_at(inode, network, limits->net_inum) && inode == limits->network;
}

static inline int has_address(const struct limits *limits, __u64 sock)
{
	__u16 family = 0;
	__u8 ends[2][16] = {};
	__u32 address = 0;

	if (limits->any_address)
		return 1;
	read_at(family, sock, limits->sock_family);
	if (family == INET6) {
		read_at(ends[0], sock, limits->sock_local6);
		read_at(ends[1], sock, limits->sock_remote6);
	} else {
		read_at(address, sock, limits->sock_local);
		map4(ends[0], address);
		read_at(address, sock, limits->sock_remote);
		map4(ends[1], address);
	}
	return same(limits->address, ends[0]) || same(limits->address, ends[1]);
}

static inline int sent_again(struct bpf_raw_tracepoint_args *event)
{
	struct limits *limits = asked();
	__u64 sock = event->args[0], network = 0;
	__u16 local = 0, remote = 0, segments = 0;

	if (!limits || read_at(network, sock, limits->sock_net) || !is_of_network(limits, network))
		return 0;
	read_at(local, sock, limits->sock_port);
	read_at(remote, sock, limits->sock_remote_port);
	read_at(segments, event->args[1], limits->skb_segments);
	__u32 port = network16(remote);
	struct service *service = service_of(limits, port, 0);
	if (!service) {
		port = local;
		service = service_of(limits, port, 0);
	}
	if (!service && limits->any_port) {
		port = OTHER;
		service = service_of(limits, port, 1);
	}
	if (service && has_address(limits, sock))
		__sync_fetch_and_add(&service->retransmitted, segments ? segments : 1);
	return 0;
}

SEC("raw_tp/retransmitted") int retransmitted(struct bpf_raw_tracepoint_args *event)
{
	return sent_again(event);
}

/* Since Linux 6.16 the kernel also tells of what it could not send, with the error: while the first one waits in a queue. */
SEC("raw_tp/retransmitted_or_not") int retransmitted_or_not(struct bpf_raw_tracepoint_args *event)
{
	return (int)event->args[2] ? 0 : sent_again(event);
}

SEC("raw_tp/entered") int entered(struct bpf_raw_tracepoint_args *event)
{
	struct limits *limits = asked();
	struct bpf_pidns_info who = {};
	__u64 task, spaces = 0, network = 0;

	/* It runs for every call of the machine: first what sorts out most of them for least. */
	if (!limits || bpf_get_ns_current_pid_tgid(limits->pid_device, limits->pid_inode, &who, sizeof who) ||
	    who.tgid == limits->observer)
		return 0;
	__u32 process = who.tgid;
	if (limits->chosen && !bpf_map_lookup_elem(&processes, &process))
		return 0;
	task = bpf_get_current_task();
	if (read_at(spaces, task, limits->task_nsproxy) || read_at(network, spaces, limits->nsproxy_net) ||
	    !is_of_network(limits, network))
		return 0;
	__u64 thread = bpf_get_current_pid_tgid();
	struct call call = {bpf_ktime_get_ns(), event->args[1]};
	bpf_map_update_elem(&under_way, &thread, &call, BPF_ANY);
	return 0;
}

SEC("raw_tp/left") int left(struct bpf_raw_tracepoint_args *event)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct call *call = bpf_map_lookup_elem(&under_way, &thread);

	if (!call)
		return 0;
	__u64 took = bpf_ktime_get_ns() - call->started;
	__u32 number = call->number;
	bpf_map_delete_elem(&under_way, &thread);
	struct histogram *histogram = bpf_map_lookup_elem(&calls, &number);
	if (histogram)
		note(histogram, took);
	return 0;
}

char licence[] SEC("license") = "GPL";
