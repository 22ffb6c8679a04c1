/* Copyright: (c) 2026, impair.testbed contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Building, sending and recognising numbered packets.
 *
 * Everything goes through raw sockets: the kernel makes the IP header, we make the rest. So a TCP class is probed
 * without a connection (no retransmission, no congestion control), and checksums are complete on the wire, which a
 * corruption needs to be seen. TCP segments carry RST: nobody answers a RST (RFC 9293, 3.5.2), and GRO never merges
 * one. ICMP packets are echo replies nobody asked for, which are ignored as well.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <linux/filter.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int header_length(int protocol) { return protocol == IPPROTO_TCP ? 20 : 8; }

static uint32_t sum(const unsigned char *data, size_t length, uint32_t total) {
    for (; length > 1; data += 2, length -= 2) total += data[0] << 8 | data[1];
    if (length) total += data[0] << 8;
    return total;
}

static uint16_t fold(uint32_t total) {
    while (total >> 16) total = (total & 0xffff) + (total >> 16);
    return total;
}

/* RFC 768, 9293: the checksum covers a pseudo header too; ICMP's does not. 0xffff over an intact segment. */
static uint16_t segment_sum(int protocol, struct in_addr from, struct in_addr to, const unsigned char *data, size_t length) {
    uint32_t total = 0;
    if (protocol != IPPROTO_ICMP) {
        total = sum((unsigned char *)&from, 4, sum((unsigned char *)&to, 4, 0));
        total += protocol + length;
    }
    return fold(sum(data, length, total));
}

static void put16(unsigned char *at, uint16_t value) { at[0] = value >> 8, at[1] = value; }

/* Fill `packet` (everything behind the IP header) and return its length. */
size_t build(const struct flow *flow, unsigned char *packet, enum kind kind, uint32_t seq) {
    size_t length = flow->length - 14 - 20;
    int header = header_length(flow->protocol), checksum = 6;
    memset(packet, 0, header);
    if (flow->protocol == IPPROTO_ICMP) {
        checksum = 2;  /* type 0, code 0: echo reply */
    } else {
        put16(packet, flow->source_port);
        put16(packet + 2, flow->destination_port);
    }
    if (flow->protocol == IPPROTO_UDP) put16(packet + 4, length);
    if (flow->protocol == IPPROTO_TCP) {
        checksum = 16;
        put16(packet + 4, seq >> 16), put16(packet + 6, seq);
        packet[12] = 5 << 4;
        packet[13] = TH_RST | TH_ACK;
    }
    struct wire wire = {.magic = htonl(MAGIC), .run = htonl(flow->run), .flow = htons(flow->id), .kind = kind,
                        .seq = htonl(seq), .sent = htobe64(realtime()), .reply = htons(flow->reply)};
    memcpy(packet + header, &wire, sizeof wire);
    uint16_t value = ~segment_sum(flow->protocol, flow->from.sin_addr, flow->to.sin_addr, packet, length);
    put16(packet + checksum, value ? value : 0xffff);
    return length;
}

int open_sender(struct flow *flow) {
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, flow->protocol);
    if (fd < 0) fail("raw socket: %s", strerror(errno));
    /* A raw socket also receives; nobody reads here, so let nothing in. */
    struct sock_filter nothing[] = {{BPF_RET | BPF_K, 0, 0, 0}};
    struct sock_fprog program = {.len = 1, .filter = nothing};
    setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &flow->send_buffer, sizeof flow->send_buffer))
        fail("send buffer: %s", strerror(errno));
    if (flow->tos && setsockopt(fd, IPPROTO_IP, IP_TOS, &flow->tos, sizeof flow->tos)) fail("tos: %s", strerror(errno));
    if (flow->mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &flow->mark, sizeof flow->mark)) fail("mark: %s", strerror(errno));
    if (flow->from.sin_addr.s_addr && bind(fd, (struct sockaddr *)&flow->from, sizeof flow->from))
        fail("from=: %s", strerror(errno));
    if (connect(fd, (struct sockaddr *)&flow->to, sizeof flow->to)) fail("to=: %s", strerror(errno));
    socklen_t length = sizeof flow->from;  /* the checksum needs the address that the kernel chose */
    getsockname(fd, (struct sockaddr *)&flow->from, &length);
    return fd;
}

/* 0: handed to the kernel. A full send buffer blocks, which is the back pressure of a node's own slow class. */
int send_one(int fd, const unsigned char *packet, size_t length, uint64_t deadline) {
    for (;;) {
        if (send(fd, packet, length, 0) >= 0) return 0;
        if (errno == EPERM) return 0; /* how netfilter tells a local sender of a drop: sent, and lost */
        if (errno != ENOBUFS && errno != EAGAIN && errno != EINTR && errno != ENOMEM) return errno;
        if (monotonic() > deadline) return ETIMEDOUT;
        usleep(1000);
    }
}

/* Hand a batch to the kernel; how many it took. */
unsigned send_batch(int fd, unsigned char packets[][SNAP], const size_t *lengths, unsigned count, uint64_t deadline, int *error) {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    unsigned done = 0;
    for (unsigned i = 0; i < count; i++) {
        parts[i] = (struct iovec){packets[i], lengths[i]};
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &parts[i], .msg_iovlen = 1}};
    }
    while (done < count) {
        int sent = count > 1 ? sendmmsg(fd, messages + done, count - done, 0) : -1;
        if (sent <= 0) { /* one alone, or the first of the rest was refused: with patience */
            if ((*error = send_one(fd, packets[done], lengths[done], deadline))) break;
            sent = 1;
        }
        done += sent;
    }
    return done;
}

/* The payload of ours at this place, or NULL. */
static const struct wire *wire_at(const unsigned char *frame, size_t captured, size_t offset, uint32_t run) {
    const struct wire *wire = (const struct wire *)(frame + offset);
    if (offset + sizeof *wire > captured) return NULL;
    return wire->magic == htonl(MAGIC) && wire->run == htonl(run) ? wire : NULL;
}

/* Take a frame apart. Damaged frames are still recognised by our header at its usual places. */
struct seen examine(const unsigned char *frame, size_t captured, uint32_t run) {
    struct seen seen = {0};
    if (captured < 14) return seen;
    seen.ethertype = frame[12] << 8 | frame[13];
    const unsigned char *ip = frame + 14;
    size_t header = captured >= 34 ? (ip[0] & 15) * 4u : 0;
    if (seen.ethertype == 0x0800 && ip[0] >> 4 == 4 && header >= 20 && 14 + header + 8 <= captured) {
        size_t total = ip[2] << 8 | ip[3], segment = total - header;
        seen.protocol = ip[9], seen.tos = ip[1];
        memcpy(&seen.source, ip + 12, 4), memcpy(&seen.destination, ip + 16, 4);
        const unsigned char *data = ip + header;
        seen.source_port = data[0] << 8 | data[1], seen.destination_port = data[2] << 8 | data[3];
        size_t offset = 14 + header + header_length(seen.protocol);
        seen.wire = wire_at(frame, captured, offset, run);
        if (seen.wire) {
            int whole = total >= header + 8 && 14 + total <= captured && fold(sum(ip, header, 0)) == 0xffff &&
                        segment_sum(seen.protocol, seen.source, seen.destination, data, segment) == 0xffff;
            seen.damaged = !whole;
            return seen;
        }
    }
    const size_t places[] = {14 + 20 + 8, 14 + 20 + 20};
    for (int i = 0; i < 2 && !seen.wire; i++) seen.wire = wire_at(frame, captured, places[i], run);
    seen.damaged = seen.wire != NULL;
    return seen;
}
