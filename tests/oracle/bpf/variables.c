/* Copyright: (c) 2026, impair.testbed contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * A program with constants, and with variables that start at 0 and elsewhere.
 */
#include <linux/bpf.h>
#define SEC(name) __attribute__((section(name), used))

static volatile const int table[] = {3, 1, 4, 1, 5};
volatile int counter;
volatile int start = 900;

SEC("classifier") int first(struct __sk_buff *skb)
{
	counter += table[skb->mark & 3] * 10;
	return counter + start;
}

char licence[] SEC("license") = "GPL";
