/* Copyright: (c) 2026, impair.testbed contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A program that calls functions, one of which nobody else calls.
 */
#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))

static __attribute__((noinline)) int third(struct __sk_buff *skb)
{
	return skb->len > 100 ? skb->mark : 7;
}

static __attribute__((noinline)) int second(struct __sk_buff *skb)
{
	return third(skb) * 10 + skb->priority;
}

static __attribute__((noinline, used)) int never(struct __sk_buff *skb)
{
	return second(skb) * 3;
}

SEC("classifier") int first(struct __sk_buff *skb)
{
	return second(skb) * 10 + third(skb);
}

char licence[] SEC("license") = "GPL";
