/* SPDX-License-Identifier: GPL-2.0-only OR GPL-3.0-or-later
 * Copyright: (c) 2026, impair.testbed contributors
 *
 * What packets of Ethernet devices suffer: a direct-action program for TCX or clsact. Section `classifier` is for what
 * leaves an interface, at its egress; section `ingress` for what arrives, at its ingress or at the egress of an IFB.
 * `classifier_alone` and `ingress_alone` do the same, and keep clsact's filters from what passes.
 * It finds the packet's rule in the maps of impair.h, numbers the rule's packets, and drops, marks, duplicates and corrupts
 * those that the rule chooses. What it lets pass goes on to the next filter.
 *
 * clang -O2 -target bpf -mcpu=v3 -c impair.c    (v3 has atomic additions that tell what stood there: Linux 5.12)
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>

#include "impair.h"

#define SEC(name) __attribute__((section(name), used))
#define inline inline __attribute__((always_inline))
#define hide(value) asm volatile("" : "+r"(value)) /* from the compiler, which must take it for another value */
#define OFFSET(type, member) __builtin_offsetof(type, member)

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define network16(value) ((__u16)__builtin_bswap16(value))
#else
#define network16(value) ((__u16)(value))
#endif

#define MOST_EXTENSIONS 8 /* headers between IPv6's own and the transport's */
#define MOST_TAGS 2
#define MOST_KNOWN 54 /* bytes: the headers of Ethernet and IPv6 */
#define GOLDEN 0x9e3779b97f4a7c15ULL

static void *(*bpf_map_lookup_elem)(const void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u32 (*bpf_get_prandom_u32)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*bpf_skb_load_bytes)(const void *skb, __u32 offset, void *to, __u32 length) =
	(void *)BPF_FUNC_skb_load_bytes;
static long (*bpf_skb_pull_data)(void *skb, __u32 length) = (void *)BPF_FUNC_skb_pull_data;
static long (*bpf_skb_store_bytes)(void *skb, __u32 offset, const void *from, __u32 length, __u64 flags) =
	(void *)BPF_FUNC_skb_store_bytes;
static long (*bpf_l4_csum_replace)(void *skb, __u32 offset, __u64 from, __u64 to, __u64 flags) =
	(void *)BPF_FUNC_l4_csum_replace;
static long (*bpf_clone_redirect)(void *skb, __u32 interface, __u64 flags) = (void *)BPF_FUNC_clone_redirect;

struct map {
	__u32 type, key_size, value_size, max_entries, map_flags;
};

SEC("maps") struct map shapes = {BPF_MAP_TYPE_ARRAY, sizeof(__u32), sizeof(struct shape), MOST_SHAPES, 0};
SEC("maps") struct map matches = {BPF_MAP_TYPE_HASH, sizeof(__u64), sizeof(struct match), 65536, BPF_F_NO_PREALLOC};
SEC("maps") struct map rules = {BPF_MAP_TYPE_HASH, sizeof(__u32), sizeof(struct rule), MOST_RULES, 0};
SEC("maps") struct map drops = {BPF_MAP_TYPE_ARRAY, sizeof(__u32), sizeof(struct drop), MOST_STATES, 0};
/* Additions to 64 bits need values aligned by 8: a hash without spare has them so on 64-bit machines only (a panic on armhf) */
SEC("maps") struct map states = {BPF_MAP_TYPE_ARRAY, sizeof(__u32), sizeof(struct state), MOST_STATES, 0};

struct packet {
	struct fields fields;
	__u32 network;   /* where the network header starts */
	__u32 transport; /* what follows the IP headers; as `network` where there are none that can be read */
	__u32 end;       /* of what the IP header tells, so without Ethernet's padding */
	__u32 whole;     /* 1: a transport header starts at `transport`; 0: a later fragment, or no IP */
};

#define WORDS(type) (sizeof(type) / 8)
union words {
	struct packet packet;
	__u64 words[WORDS(struct packet)];
};

/* ---- What the packet is ---- */

/* What `load` reads at places that the compiler knows is there, unless the packet ends before. */
static inline void pull(struct __sk_buff *skb)
{
	if (skb->data + MOST_KNOWN > skb->data_end && skb->data_end - skb->data < skb->len)
		bpf_skb_pull_data(skb, skb->len < MOST_KNOWN ? skb->len : MOST_KNOWN);
}

/* The helper costs more than all else here. Places that the compiler knows are read without it, in units as they are aligned:
 * the verifier takes the Ethernet header to start two bytes before a multiple of four, as NET_IP_ALIGN has it.
 */
static inline int load(struct __sk_buff *skb, __u32 at, void *to, const __u32 size)
{
	const void *start = (const void *)(long)skb->data + at;

	if (!__builtin_constant_p(at))
		return bpf_skb_load_bytes(skb, at, to, size);
	if (start + size > (const void *)(long)skb->data_end)
		return -1;
	for (__u32 place = 0; place < size; place += 2) {
		int is_aligned = (at + place + 2) % 4 == 0;

		if (is_aligned && place + 4 <= size)
			*(__u32 *)(to + place) = *(const __u32 *)(start + place);
		else if (is_aligned || !place)
			*(__u16 *)(to + place) = *(const __u16 *)(start + place);
	}
	return 0;
}

/* A tag is in the frame, or beside it where a device adds or took it (skb->vlan_*). */
static inline int parse_ethernet(struct __sk_buff *skb, struct packet *packet)
{
	struct fields *fields = &packet->fields;
	struct ethhdr head;
	__be16 tag[2]; /* tag control information, ethertype of what follows */
	__be16 ethertype;

	if (load(skb, 0, &head, sizeof head))
		return -1;
	__builtin_memcpy(fields->source_mac, head.h_source, ETH_ALEN);
	__builtin_memcpy(fields->destination_mac, head.h_dest, ETH_ALEN);
	ethertype = head.h_proto;
	packet->network = ETH_HLEN;
	if (skb->vlan_present) {
		fields->vlan = skb->vlan_tci & 0xfff;
		fields->tags = 1;
	}
	for (int count = 0; count < MOST_TAGS; count++) {
		if (ethertype != network16(ETH_P_8021Q) && ethertype != network16(ETH_P_8021AD))
			break;
		if (fields->tags == MOST_TAGS || load(skb, packet->network, tag, sizeof tag))
			break;
		if (!fields->tags)
			fields->vlan = network16(tag[0]) & 0xfff;
		fields->tags++;
		packet->network += sizeof tag;
		ethertype = tag[1];
	}
	/* A length, not a type: tc calls what follows 802_2, too (net/ethernet/eth.c, eth_type_trans). */
	fields->ethertype = network16(ethertype) < ETH_P_802_3_MIN ? network16(ETH_P_802_2) : ethertype;
	return 0;
}

/* Where a datagram of this length ends. A superpacket beyond 64 KiB (BIG TCP) has 0 in its header. */
static inline __u32 datagram_end(struct __sk_buff *skb, __u32 start, __u32 length, int unknown)
{
	return unknown || start + length > skb->len ? skb->len : start + length;
}

/* Mostly right behind an Ethernet header without tags. */
static inline int load_network(struct __sk_buff *skb, const struct packet *packet, void *to, const __u32 size)
{
	return packet->network == ETH_HLEN ? load(skb, ETH_HLEN, to, size) : load(skb, packet->network, to, size);
}

static inline void parse_ipv4(struct __sk_buff *skb, struct packet *packet)
{
	struct fields *fields = &packet->fields;
	struct iphdr head;
	__u32 size, length, end;

	if (load_network(skb, packet, &head, sizeof head))
		return;
	size = *(__u8 *)&head - 0x40; /* version 4, and the header's length in words */
	if (size < 5 || size > 15)
		return;
	size *= 4;
	length = network16(head.tot_len);
	end = datagram_end(skb, packet->network, length, !length && skb->gso_size);
	if (packet->network + size > end)
		return;
	__builtin_memcpy(fields->source, &head.saddr, 4);
	__builtin_memcpy(fields->destination, &head.daddr, 4);
	fields->dscp = head.tos >> 2;
	fields->protocol = head.protocol;
	packet->transport = packet->network + size;
	packet->end = end;
	packet->whole = !(head.frag_off & network16(0x1fff));
}

static inline int is_extension(__u8 kind)
{
	return kind == IPPROTO_HOPOPTS || kind == IPPROTO_ROUTING || kind == IPPROTO_DSTOPTS ||
	       kind == IPPROTO_FRAGMENT || kind == IPPROTO_AH;
}

/* Behind extension headers that are cut short, or too many, is no protocol. */
static inline void parse_extensions(struct __sk_buff *skb, struct packet *packet, __u8 kind)
{
	struct {
		__u8 next, length;
		__be16 fragment; /* in the fragment header: the offset in units of 8 bytes, times 8, and flags */
	} head;
	__u32 at = packet->transport;
	__u32 size;

#pragma clang loop unroll(disable)
	for (int count = 0; count <= MOST_EXTENSIONS; count++) {
		if (!is_extension(kind)) {
			packet->fields.protocol = kind;
			packet->transport = at;
			packet->whole = 1;
			return;
		}
		if (at + 8 > packet->end || load(skb, at, &head, sizeof head))
			return;
		size = kind == IPPROTO_FRAGMENT ? 8 : kind == IPPROTO_AH ? head.length * 4 + 8 : head.length * 8 + 8;
		at += size;
		if (at > packet->end)
			return;
		if (kind == IPPROTO_FRAGMENT && head.fragment & network16(0xfff8)) {
			/* A later one. Where further extension headers were, the first fragment alone tells what they hold. */
			packet->fields.protocol = is_extension(head.next) ? 0 : head.next;
			packet->transport = at;
			return;
		}
		kind = head.next;
	}
}

static inline void parse_ipv6(struct __sk_buff *skb, struct packet *packet)
{
	struct fields *fields = &packet->fields;
	struct ipv6hdr head;
	__u32 length;

	if (load_network(skb, packet, &head, sizeof head))
		return;
	if (*(__u8 *)&head >> 4 != 6)
		return;
	__builtin_memcpy(fields->source, &head.saddr, 16);
	__builtin_memcpy(fields->destination, &head.daddr, 16);
	fields->dscp = network16(*(__be16 *)&head) >> 6 & 0x3f;
	length = network16(head.payload_len);
	packet->transport = packet->network + sizeof head;
	packet->end = datagram_end(skb, packet->transport, length, !length && skb->gso_size);
	parse_extensions(skb, packet, head.nexthdr);
}

/* The two ports stand one behind the other, mostly right behind a header of IPv4 without options. */
static inline void parse_ports(struct __sk_buff *skb, struct packet *packet)
{
	const __u32 usual = ETH_HLEN + sizeof(struct iphdr);
	__u32 at = packet->transport;
	__be16 ports[2] __attribute__((aligned(4)));

	if (at == usual ? load(skb, usual, ports, sizeof ports) : load(skb, at, ports, sizeof ports))
		return;
	packet->fields.source_port = ports[0];
	packet->fields.destination_port = ports[1];
	packet->fields.ports = 1;
}

static inline int parse(struct __sk_buff *skb, struct packet *packet)
{
	struct fields *fields = &packet->fields;

	fields->mark = skb->mark;
	fields->in_interface = skb->ingress_ifindex;
	if (parse_ethernet(skb, packet))
		return -1;
	packet->transport = packet->network;
	packet->end = skb->len;
	if (fields->ethertype == network16(ETH_P_IP))
		parse_ipv4(skb, packet);
	else if (fields->ethertype == network16(ETH_P_IPV6))
		parse_ipv6(skb, packet);
	if (!packet->whole || packet->transport + 4 > packet->end)
		return 0;
	if (fields->protocol == IPPROTO_TCP || fields->protocol == IPPROTO_UDP || fields->protocol == IPPROTO_SCTP)
		parse_ports(skb, packet);
	return 0;
}

/* After this the verifier knows none of the values: it walks what follows once, not once for each way through the headers. */
static inline void forget(struct __sk_buff *skb, union words *packet)
{
	__u64 nothing = skb->len;

	hide(nothing);
	nothing -= skb->len;
	for (unsigned int word = 0; word < WORDS(struct packet); word++)
		packet->words[word] += nothing;
}

/* The target with the least order among all matches that the packet fits. 0: there is none. */
static inline int find(const union words *packet, struct target *best)
{
	__u64 words[WORDS(struct fields)];
	__u64 found = 0;

#pragma clang loop unroll(disable)
	for (__u32 number = 0; number < MOST_SHAPES; number++) {
		__u32 index = number;
		const struct shape *shape = bpf_map_lookup_elem(&shapes, &index);
		struct target one;
		__u64 apart = 0;
		__u64 fits;

		if (!shape || !shape->used)
			break;
		for (unsigned int word = 0; word < WORDS(struct fields); word++) {
			words[word] = packet->words[word] & ((const __u64 *)&shape->mask)[word];
			apart |= words[word] ^ ((const __u64 *)&shape->only)[word];
		}
		one = shape->target;
		if (!shape->lone) {
			const struct match *match;
			__u64 key = number;

			for (unsigned int word = 0; word < WORDS(struct fields); word++)
				key += words[word] * FACTOR(word);
			match = bpf_map_lookup_elem(&matches, &key);
			apart = 1;
			if (match) {
				apart = match->shape ^ number;
				for (unsigned int word = 0; word < WORDS(struct fields); word++)
					apart |= words[word] ^ ((const __u64 *)&match->fields)[word];
				one = match->target;
			}
		}
		fits = !apart;
		hide(fits); /* what the verifier knows of no turn makes it walk the next one again */
		if (fits && (!found || one.order < best->order)) {
			*best = one;
			found = 1;
		}
		hide(found);
		if (found && best->order <= shape->behind)
			break;
	}
	return found;
}

/* ---- Which packets are chosen ---- */

/* Number `position` of the generator splitmix64 that starts with `seed`; the upper half of its 64 bits. */
static inline __u32 splitmix(__u64 seed, __u64 position)
{
	__u64 mixed = seed + (position + 1) * GOLDEN;

	mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9ULL;
	mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebULL;
	return (mixed ^ (mixed >> 31)) >> 32;
}

static inline __u32 draw(const struct chooser *chooser, __u64 position)
{
	return chooser->seeded ? splitmix(chooser->seed, position) : bpf_get_prandom_u32();
}

static inline int below(__u32 drawn, __u64 chance)
{
	return drawn < chance || chance >= ALWAYS;
}

enum gilbert_elliott { GOOD, BAD };
enum four_states { TX_IN_GAP, TX_IN_BURST, LOST_IN_GAP, LOST_IN_BURST }; /* as in net/sched/sch_netem.c */

/* As loss_gilb_ell() in net/sched/sch_netem.c: the state before the step says which loss applies. */
static inline int gilbert_elliott(const struct chooser *chooser, __u32 *chain, __u32 one, __u32 two)
{
	const __u32 *chances = chooser->chances; /* p, r, 1-h, 1-k */

	if (*chain == GOOD) {
		if (below(one, chances[0]))
			*chain = BAD;
		return below(two, chances[3]);
	}
	if (below(one, chances[1]))
		*chain = GOOD;
	return below(two, chances[2]);
}

/* As loss_4state() there. */
static inline int four_state(const struct chooser *chooser, __u32 *chain, __u32 one)
{
	const __u32 *chances = chooser->chances; /* p13, p31, p32, p23, p14 */

	switch (*chain) {
	case TX_IN_GAP:
		if (below(one, chances[4]))
			*chain = LOST_IN_GAP;
		else if (below(one, (__u64)chances[0] + chances[4]))
			*chain = LOST_IN_BURST;
		break;
	case TX_IN_BURST:
		if (below(one, chances[3]))
			*chain = LOST_IN_BURST;
		break;
	case LOST_IN_BURST:
		if (below(one, chances[2]))
			*chain = TX_IN_BURST;
		else if (below(one, (__u64)chances[1] + chances[2]))
			*chain = TX_IN_GAP;
		break;
	default:
		*chain = TX_IN_GAP;
	}
	return *chain == LOST_IN_GAP || *chain == LOST_IN_BURST;
}

/* Another CPU may move the chain between reading and writing: then the step is made again from where it stands now. */
static inline int step(const struct chooser *chooser, __u32 *chain, __u64 position)
{
	__u32 one = draw(chooser, position);
	__u32 two = draw(chooser, position + 1);
	int chosen = 0;

#pragma clang loop unroll(disable)
	for (int again = 0; again < 8; again++) {
		__u32 before = *(volatile __u32 *)chain;
		__u32 after = before;

		if (chooser->kind == GILBERT_ELLIOTT)
			chosen = gilbert_elliott(chooser, &after, one, two);
		else
			chosen = four_state(chooser, &after, one);
		if (after == before || __sync_val_compare_and_swap(chain, before, after) == before)
			break;
	}
	return chosen;
}

/* Of 32 bits where that is enough: some processors take three times as long for 64. */
static inline __u32 remainder(__u64 number, __u32 divisor)
{
	return number >> 32 ? number % divisor : (__u32)number % divisor;
}

enum choosers { DROP, CORRUPT, DUPLICATE, MARK };

static __attribute__((noinline)) int chosen(const struct chooser *chooser, struct state *state, __u64 number, __u32 which)
{
	__u64 position = number * 8 + which * 2; /* each chooser has two draws of its own for each packet */
	__u32 every = chooser->every;

	switch (chooser->kind) {
	case EVERY:
		return every && remainder(number, every) == chooser->place;
	case PATTERN:
		if (!every)
			return 0;
		number = remainder(number, every);
		return chooser->pattern[number / 64 % PATTERN_WORDS] >> number % 64 & 1;
	case RANDOM:
		return below(draw(chooser, position), chooser->chances[0]);
	case GILBERT_ELLIOTT:
	case FOUR_STATE:
		return step(chooser, &state->chains[which & 3], position);
	case ALL:
		return 1;
	}
	return 0;
}

/* ---- What they suffer ---- */

/* A packet that the transport left for the device to checksum (CHECKSUM_PARTIAL) has the sum of the pseudo header in that
 * field. No helper tells; but one that amends checksums leaves such a field as it is (net/core/utils.c,
 * inet_proto_csum_replace_by_diff).
 */
static inline int is_left_to_device(struct __sk_buff *skb, __u32 at)
{
	__be16 before, after;

	if (bpf_skb_load_bytes(skb, at, &before, 2) || bpf_l4_csum_replace(skb, at, 0, 1, 0))
		return 0;
	if (bpf_skb_load_bytes(skb, at, &after, 2))
		return 0;
	if (after != before)
		bpf_skb_store_bytes(skb, at, &before, 2, 0);
	return after == before;
}

static inline __u16 fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Add to the sum in a header: to the sum itself where the device completes it, else to its complement (RFC 1624). */
static inline void add_to_sum(struct __sk_buff *skb, __u32 at, __u32 more, int left_to_device, int udp)
{
	__be16 field;
	__u16 sum;

	if (bpf_skb_load_bytes(skb, at, &field, 2) || (udp && !field))
		return; /* 0: the sender made no checksum */
	sum = network16(field);
	sum = left_to_device ? fold(sum + more) : ~fold((__u16)~sum + more);
	if (udp && !sum)
		sum = 0xffff;
	field = network16(sum);
	bpf_skb_store_bytes(skb, at, &field, 2, BPF_F_RECOMPUTE_CSUM);
}

/* Where the transport's checksum stands; 0: there is none that additions can amend (SCTP has a CRC), or not here. */
static inline __u32 transport_checksum(const struct packet *packet)
{
	__u32 at = packet->transport;

	if (!packet->whole)
		return 0;
	switch (packet->fields.protocol) {
	case IPPROTO_TCP:
		at += 16;
		break;
	case IPPROTO_UDP:
		at += 6;
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		at += 2;
		break;
	default:
		return 0;
	}
	return at + 2 > packet->end ? 0 : at;
}

/* Where the payload starts, which may be behind the packet's end. */
static inline __u32 payload(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 size = 0;
	__u8 words;

	if (!packet->fields.ports)
		return packet->transport;
	if (packet->fields.protocol == IPPROTO_UDP)
		size = 8;
	else if (packet->fields.protocol == IPPROTO_SCTP)
		size = 12;
	else if (!bpf_skb_load_bytes(skb, packet->transport + 12, &words, 1) && words >> 4 >= 5)
		size = (words >> 4) * 4;
	return size ? packet->transport + size : packet->end;
}

/* Where what the transport's checksum covers ends: UDP tells it itself. */
static inline __u32 covered_end(struct __sk_buff *skb, const struct packet *packet)
{
	__be16 length;

	if (packet->fields.protocol == IPPROTO_UDP && !bpf_skb_load_bytes(skb, packet->transport + 4, &length, 2) &&
	    network16(length) >= 8 && packet->transport + network16(length) < packet->end)
		return packet->transport + network16(length);
	return packet->end;
}

/* 1 or 0 without a branch: the verifier would walk all ways through the loop below. */
static inline __u32 is_less(__u32 one, __u32 other)
{
	__u64 difference = (__u64)one - other;

	hide(difference); /* or the compiler makes it a branch */
	return difference >> 63;
}

#define ZERO (65535 * 32) /* 0 in the arithmetic of checksums, and more than 16 bytes can take away */

/* Returns 1 where bytes were changed, 0 where there are none at that place. */
static __attribute__((noinline)) int corrupt(struct __sk_buff *skb, const struct rule *rule, const struct packet *packet)
{
	int ipv4 = packet->fields.ethertype == network16(ETH_P_IP) && packet->transport > packet->network;
	int ipv6 = packet->fields.ethertype == network16(ETH_P_IPV6) && packet->transport > packet->network;
	__u32 addresses = packet->network + (ipv4 ? OFFSET(struct iphdr, saddr) : OFFSET(struct ipv6hdr, saddr));
	__u32 addresses_end = ipv4 ? addresses + 8 : ipv6 ? addresses + 32 : 0;
	__u32 header_sum = ipv4 ? packet->network + OFFSET(struct iphdr, check) : 0;
	__u32 transport_sum = transport_checksum(packet);
	__u32 covered = covered_end(skb, packet);
	__u32 header = ZERO, pseudo = ZERO, body = ZERO; /* what the sums of these parts grow by */
	__u8 bytes[MOST_CORRUPTED] = {0};
	__u32 index = 0;
	__u32 start = packet->network;
	__u64 length;

	if (rule->base == PAYLOAD)
		start = payload(skb, packet);
	else if (rule->base == TRANSPORT)
		start = packet->transport;
	if (start >= packet->end || rule->offset >= packet->end - start)
		return 0;
	start += rule->offset;
	length = packet->end - start;
	if (length > rule->length)
		length = rule->length;
	if (length > MOST_CORRUPTED)
		length = MOST_CORRUPTED;
	if (length == 0)
		return 0;
	hide(length); /* what the compiler knows now, the verifier of Linux 6.1 wants to see once more, here and below */
	length = ((length - 1) & (MOST_CORRUPTED - 1)) + 1;
	if (bpf_skb_load_bytes(skb, start, bytes, length))
		return 0;
	hide(length);
#pragma clang loop unroll(disable)
	do {
		__u32 at = start + index;
		__u32 summed = is_less((at ^ transport_sum) & ~1, 1) | is_less((at ^ header_sum) & ~1, 1);
		__u32 stays = summed & rule->fix_checksums; /* what is to fit is amended below; both stand at even places */
		__u32 more = -(__u32)bytes[index];

		bytes[index] ^= rule->xor[index] & (stays - 1);
		more += bytes[index];
		/* Words of 16 bits count from the start of the network header, and so from that of the transport's. */
		more <<= ~(at - packet->network) << 3 & 8;
		more &= summed - 1;
		header += more & -is_less(at, packet->transport);
		body += more & -(is_less(at, covered) & ~is_less(at, packet->transport));
		pseudo += more & -(is_less(at, addresses_end) & ~is_less(at, addresses));
	} while (++index < MOST_CORRUPTED && index < length);
	if (transport_sum) {
		int udp = packet->fields.protocol == IPPROTO_UDP;
		int left = is_left_to_device(skb, transport_sum);

		/* ICMP has no pseudo header. A device's sum covers the body as it then is: to have it no longer fit,
		 * what was added to the body is taken away here. */
		if (packet->fields.protocol == IPPROTO_ICMP)
			pseudo = ZERO;
		if (bpf_skb_store_bytes(skb, start, bytes, length, BPF_F_RECOMPUTE_CSUM))
			return 0;
		if (rule->fix_checksums)
			add_to_sum(skb, transport_sum, left ? pseudo : fold(pseudo) + fold(body), left, udp);
		else if (left)
			add_to_sum(skb, transport_sum, 2 * ZERO - body, left, udp);
	} else if (bpf_skb_store_bytes(skb, start, bytes, length, BPF_F_RECOMPUTE_CSUM)) {
		return 0;
	}
	if (header_sum && rule->fix_checksums)
		add_to_sum(skb, header_sum, header, 0, 0);
	return 1;
}

/* The copy passes the interface's filters again, and is known by its index. Returns 1 where it was sent.
 * What arrives has to arrive again: an IFB would send a copy that the helper gives to it out of the interface where it came
 * in, as the helper says that it does not come from there (skb_set_redirected_noclear(), drivers/net/ifb.c).
 */
static inline int duplicate(struct __sk_buff *skb, int arrives)
{
	__u32 index = skb->tc_index;
	long result;

	skb->tc_index = CLONE;
	if (arrives)
		result = bpf_clone_redirect(skb, skb->ingress_ifindex, BPF_F_INGRESS);
	else
		result = bpf_clone_redirect(skb, skb->ifindex, 0);
	skb->tc_index = index;
	return result >= 0; /* a queue that drops the copy gives a positive number */
}

/* The packet's number. */
static inline __u64 count(struct __sk_buff *skb, struct state *state)
{
	if (skb->gso_size) {
		__u32 segments = skb->gso_segs; /* 0 where a virtual machine's device did not tell */

		__sync_fetch_and_add(&state->superpackets, 1);
		__sync_fetch_and_add(&state->segments, segments ? segments : skb->len / skb->gso_size + 1);
	}
	return __sync_fetch_and_add(&state->seen, 1);
}

static inline int drop(struct __sk_buff *skb, struct drop asked, struct state *state)
{
	if (remainder(count(skb, state), asked.every) != asked.place)
		return TC_ACT_UNSPEC;
	__sync_fetch_and_add(&state->dropped, 1);
	return TC_ACT_SHOT;
}

#define IS_CHOSEN(which, chooser) (rule->uses & 1 << (which) && chosen(&rule->chooser, state, number, which))

/* What is dropped suffers nothing else. Mark and priority come before the copy, so that both have them; corruption comes
 * behind it, so that the copy is intact (the helper that changes bytes gives this packet bytes of its own).
 */
static inline int suffer(struct __sk_buff *skb, const struct rule *rule, struct state *state, const struct packet *packet,
			 int arrives)
{
	__u64 number = count(skb, state);

	if (IS_CHOSEN(DROP, drop)) {
		__sync_fetch_and_add(&state->dropped, 1);
		return TC_ACT_SHOT;
	}
	if (IS_CHOSEN(MARK, mark)) {
		skb->mark = (skb->mark & ~rule->mark_mask) | rule->mark_value;
		__sync_fetch_and_add(&state->marked, 1);
	}
	if (IS_CHOSEN(DUPLICATE, duplicate) && duplicate(skb, arrives))
		__sync_fetch_and_add(&state->duplicated, 1);
	if (IS_CHOSEN(CORRUPT, corrupt) && corrupt(skb, rule, packet))
		__sync_fetch_and_add(&state->corrupted, 1);
	return TC_ACT_UNSPEC;
}

/* Once in the object for all sections, which the controller sends at each run. */
static __attribute__((noinline)) int impair_packet(struct __sk_buff *skb, int arrives)
{
	int is_copy = skb->tc_index == CLONE;
	union words packet = {0};
	struct target target;
	union {
		struct drop drop;
		__u64 word;
	} asked;
	const struct rule *rule;
	const __u64 *only;
	struct state *state;
	__u32 place;

	if (is_copy)
		skb->tc_index = 0;
	if (is_copy && !arrives)
		return TC_ACT_UNSPEC;
	pull(skb);
	if (parse(skb, &packet.packet))
		return TC_ACT_UNSPEC;
	forget(skb, &packet);
	if (!find(&packet, &target))
		return TC_ACT_UNSPEC;
	if (target.priority)
		skb->priority = target.priority; /* of a copy that arrives again, too: the helper makes it 0 */
	if (!target.rule || is_copy)
		return TC_ACT_UNSPEC;
	place = target.rule % MOST_STATES;
	only = bpf_map_lookup_elem(&drops, &place);
	state = bpf_map_lookup_elem(&states, &place);
	if (!only || !state)
		return TC_ACT_UNSPEC;
	asked.word = *only;
	if (asked.drop.every)
		return drop(skb, asked.drop, state);
	rule = bpf_map_lookup_elem(&rules, &target.rule);
	if (!rule)
		return TC_ACT_UNSPEC;
	return suffer(skb, rule, state, &packet.packet, arrives);
}

SEC("classifier") int impair(struct __sk_buff *skb)
{
	return impair_packet(skb, 0);
}

SEC("ingress") int impair_arriving(struct __sk_buff *skb)
{
	return impair_packet(skb, 1);
}

/* While a program moves between clsact and TCX both places have one: at TCX this, so that no packet passes two. */
static inline int alone(int verdict)
{
	return verdict == TC_ACT_UNSPEC ? TC_ACT_OK : verdict;
}

SEC("classifier_alone") int impair_alone(struct __sk_buff *skb)
{
	return alone(impair_packet(skb, 0));
}

SEC("ingress_alone") int impair_arriving_alone(struct __sk_buff *skb)
{
	return alone(impair_packet(skb, 1));
}

SEC("license") char licence[] = "GPL";
