/* Copyright: (c) 2026, impair.testbed contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Maps as libbpf's macros __uint and __type write them.
 */
#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;

struct value {
	int numbers[3];
	long more;
};

struct {
	int (*type)[BPF_MAP_TYPE_HASH];
	int (*max_entries)[1024];
	int (*map_flags)[BPF_F_NO_PREALLOC];
	int (*pinning)[1];
	unsigned short *key;
	struct value *value;
} by_type SEC(".maps");

struct {
	int (*type)[BPF_MAP_TYPE_ARRAY];
	int (*key_size)[4];
	int (*value_size)[20];
	int (*max_entries)[7];
} by_size SEC(".maps");

SEC("classifier") int first(struct __sk_buff *skb)
{
	unsigned short key = skb->mark;
	int place = 2;
	struct value *found = bpf_map_lookup_elem(&by_type, &key);
	int *other = bpf_map_lookup_elem(&by_size, &place);

	return found && other ? found->numbers[1] + *other : -1;
}

char licence[] SEC("license") = "GPL";
