/* SPDX-License-Identifier: GPL-2.0-only OR GPL-3.0-or-later
 * Copyright: (c) 2026, impair.testbed contributors
 *
 * A classifier that matches every nth packet: -1 gives it the filter's class, 0 leaves it to the next filter.
 *
 * clang -O2 -g -target bpf -mcpu=v3 -c every_nth.c
 * tc filter add dev eth0 parent 1: bpf object-file every_nth.o section classifier classid 1:1
 */
#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#define NUMBER(name, value) int(*name)[value] /* as libbpf's macros write maps */
#define TYPE(name, value) value *name

#ifndef EVERY
#define EVERY 20
#endif

static void *(*bpf_map_lookup_elem)(const void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u32);
} every SEC(".maps"); /* 0: as compiled */

struct {
	NUMBER(type, BPF_MAP_TYPE_ARRAY);
	NUMBER(max_entries, 1);
	TYPE(key, __u32);
	TYPE(value, __u64);
} seen SEC(".maps");

SEC("classifier") int every_nth(struct __sk_buff *skb)
{
	__u32 first = 0;
	__u32 *asked = bpf_map_lookup_elem(&every, &first);
	__u64 *count = bpf_map_lookup_elem(&seen, &first);

	if (!asked || !count)
		return 0;
	__u64 group = *asked ? *asked : EVERY;
	return __sync_fetch_and_add(count, 1) % group == group - 1 ? -1 : 0;
}

char licence[] SEC("license") = "GPL";
