/* Copyright: (c) 2026, impair.testbed contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Gives packets a VLAN tag beside the frame, as a VLAN device or a bridge does; then other filters see them.
 */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#define SEC(name) __attribute__((section(name), used))

static long (*bpf_skb_vlan_push)(struct __sk_buff *skb, __be16 protocol, __u16 tag) =
	(void *)BPF_FUNC_skb_vlan_push;

SEC("classifier") int push(struct __sk_buff *skb)
{
	bpf_skb_vlan_push(skb, 0, 0x6005); /* 802.1Q, priority 3, VLAN 5 */
	return TC_ACT_UNSPEC;
}

char licence[] SEC("license") = "GPL";
