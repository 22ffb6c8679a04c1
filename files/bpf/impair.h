/* SPDX-License-Identifier: GPL-2.0-only OR GPL-3.0-or-later
 * Copyright: (c) 2026, impair.testbed contributors
 *
 * What the program and the engine on the node share: the layout of the maps. plugins/module_utils/bpf/layout.py says the
 * same in Python. Numbers are in the machine's byte order unless a comment says otherwise; nothing is padded silently.
 */
#ifndef IMPAIR_H
#define IMPAIR_H

#include <linux/types.h>

#define MOST_SHAPES 64    /* kinds of match that one interface may have */
#define MOST_RULES 4096   /* of a node */
#define MOST_STATES 65536 /* rules differ in their lower 16 bits */
#define PATTERN_WORDS 16  /* of 64 packets each */
#define MOST_CORRUPTED 16 /* bytes of one packet */
#define LABEL 96          /* bytes */
#define ALWAYS 0xffffffff /* a chance; others are of 2^32 */
#define LAST 0xffffffff   /* more than any order */
#define CLONE 0x7e57      /* skb->tc_index of a duplicate, which passes the program a second time */

/* A packet's fields; what it does not have is 0. Addresses, ports and ethertype are in network byte order. */
struct fields {
	__u8 source[16], destination[16]; /* of IPv4 in the first four bytes */
	__u8 source_mac[6], destination_mac[6];
	__be16 ethertype; /* behind all VLAN tags */
	__be16 source_port, destination_port;
	__u16 vlan; /* of the outer tag */
	__u32 mark;
	__u32 in_interface; /* index of where it came in, 0: made here */
	__u8 protocol;      /* behind IPv6's extension headers */
	__u8 dscp;
	__u8 tags;  /* number of VLAN tags */
	__u8 ports; /* 1: tcp, udp or sctp, and not a later fragment */
} __attribute__((aligned(8))); /* or words of it are read by halves */

/* What becomes of these packets; the least order of all shapes wins. */
struct target {
	__u32 order;
	__u32 rule;     /* key in `rules`, modulo MOST_STATES the place in `drops` and `states`; 0: not impaired here */
	__u32 priority; /* for skb->priority, where HTB finds its class; 0: left as it is */
};

/* Array `shapes`: the masks under which packets are looked up, sorted by the least order of their matches. */
struct shape {
	__u32 used;   /* 0: the list ended before this one */
	__u32 behind; /* least order among the matches of the shapes behind this one; LAST: there are none */
	__u32 lone;   /* 1: it has but one match, which takes no look-up: */
	struct target target;
	struct fields mask;
	struct fields only; /* that one */
};

/* Entry of the hash `matches`: fields under the mask of a shape. Its key is `shape` plus the sum of the fields' words of 64
 * bits, each times its FACTOR: that takes a third of the time that the kernel takes to hash them all. What a packet finds
 * there is compared.
 */
#define FACTOR(word) (0x9e3779b97f4a7c15ULL + 2 * (word) * 0x94d049bb133111ebULL)
struct match {
	struct fields fields;
	__u32 shape;
	struct target target;
};

enum chooser_kind { NEVER, EVERY, PATTERN, RANDOM, GILBERT_ELLIOTT, FOUR_STATE, ALL };

/* Which packets of a rule suffer something. The first packet that a rule sees has the number 0. */
struct chooser {
	__u32 kind;
	__u32 every;      /* EVERY: one of so many; PATTERN: length in packets */
	__u32 place;      /* EVERY: the number modulo `every` that is chosen */
	__u32 seeded;     /* 1: chance is a function of `seed` and the packet's number, else of the kernel's generator */
	__u64 seed;
	__u32 chances[5]; /* RANDOM: 1; GILBERT_ELLIOTT: p, r, 1-h, 1-k; FOUR_STATE: p13, p31, p32, p23, p14 (tc-netem(8)) */
	__u32 zero;
	__u64 pattern[PATTERN_WORDS]; /* packet n: bit n % 64 of word n / 64, n being the number modulo `every` */
};

enum corruption_base { PAYLOAD, TRANSPORT, NETWORK };

/* Hash `rules`: what packets suffer. A new value is one map update; `states` stays as it is. It has its memory from the start:
 * among a thousand rules that stand side by side a packet takes a quarter less time than among scattered ones.
 */
struct rule {
	__u32 uses; /* bit n: the nth of the choosers is not NEVER; so a packet touches no more of a rule than it needs */
	__u32 zero;
	struct chooser drop, corrupt, duplicate, mark;
	__u32 base;           /* enum corruption_base: what `offset` counts from; without ports PAYLOAD is behind the IP header */
	__u32 offset, length; /* in bytes; what lies behind the packet's end is left out */
	__u32 fix_checksums;  /* 1: of IPv4, TCP, UDP, ICMP; 0: they stay as they were, and no longer fit */
	__u8 xor[MOST_CORRUPTED];
	__u32 mark_value, mark_mask; /* mark becomes mark & ~mask | value */
	char label[LABEL];           /* for people: the interface and the class, UTF-8, filled with zeros */
};

/* Array `drops`, at the rule's place in `states`: what a rule asks that only drops one of every so many packets, as most do.
 * A packet finds it in a third of the time of a look-up in `rules`. It is read and written as one.
 */
struct drop {
	__u32 every; /* 0: the rule is another one, and stands in `rules` alone */
	__u32 place;
} __attribute__((aligned(8)));

/* Array `states`: where each rule stands, and what happened. Added to atomically. An array, as a packet finds its place there
 * in less time than in a hash, and as its values are aligned for atomic additions: where pointers have 32 bits, those of a hash
 * without spare entries are not since Linux 6.1 (kernel/bpf/memalloc.c), and ARM's ldrexd ends in a panic.
 */
struct state {
	__u64 seen; /* the number of the next packet */
	__u64 dropped, corrupted, duplicated, marked;
	__u64 superpackets; /* packets of several segments, which GRO or TSO gathered: each counted as one */
	__u64 segments;     /* that they hold */
	__u32 chains[4];    /* where the Markov chains of drop, corrupt, duplicate, mark stand */
};

#endif
