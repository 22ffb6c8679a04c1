/* Copyright: (c) 2026, impair.testbed contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * watch: record every frame that passes the given interfaces, and answer requests.
 *
 * An AF_PACKET socket sees incoming frames before the ingress hooks and outgoing frames behind the qdisc
 * (net/core/dev.c: the ptype_all taps), so both sides of an impairment are recorded on one clock.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_POINTS 32
#define MAX_HOLDS 256

static volatile sig_atomic_t stopping;
static FILE *records;
static unsigned long written;
static uint32_t run;
static const char *directory;
static uint16_t calibration_port;
static int answers = -1;
static int busy; /* packets of load come in */
static struct in_addr addresses[MAX_POINTS];
static int address_count;

static void on_signal(int signal) { (void)signal, stopping = 1; }

/* Let everything pass but our own packets of KIND_RATE: those are thousands a second and only the receiver counts them. */
static void attach_filter(int fd) {
    struct sock_filter code[] = {
        /* 0 */ BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
        /* 1 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 10),
        /* 2 */ BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 14), /* X: length of the IP header */
        /* 3 */ BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 23),
        /* 4 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 3),
        /* 5 */ BPF_STMT(BPF_MISC | BPF_TXA, 0), /* TCP's header is 12 bytes longer than UDP's */
        /* 6 */ BPF_STMT(BPF_ALU | BPF_ADD | BPF_K, 12),
        /* 7 */ BPF_STMT(BPF_MISC | BPF_TAX, 0),
        /* 8 */ BPF_STMT(BPF_LD | BPF_W | BPF_IND, 14 + 8),
        /* 9 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MAGIC, 0, 2),
        /* 10 */ BPF_STMT(BPF_LD | BPF_B | BPF_IND, 14 + 8 + offsetof(struct wire, kind)),
        /* 11 */ BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, KIND_RATE, 1, 0),
        /* 12 */ BPF_STMT(BPF_RET | BPF_K, 0x40000),
        /* 13 */ BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program)) fail("filter: %s", strerror(errno));
}

static int open_point(const char *interface, int with_rate) {
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0), on = 1, size = 32 << 20;
    struct sockaddr_ll here = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = if_nametoindex(interface)};
    if (fd < 0) fail("packet socket: %s", strerror(errno));
    if (!here.sll_ifindex) fail("interface %s does not exist", interface);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    if (!with_rate) attach_filter(fd);
    if (bind(fd, (struct sockaddr *)&here, sizeof here)) fail("%s: %s", interface, strerror(errno));
    return fd;
}

/* A bound UDP port that takes nothing in: what is sent there is not answered by "port unreachable". */
static int hold(uint16_t port, int deaf) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sock_filter nothing[] = {{BPF_RET | BPF_K, 0, 0, 0}};
    struct sock_fprog program = {.len = 1, .filter = nothing};
    if (fd < 0) fail("udp socket: %s", strerror(errno));
    if (deaf) setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
    if (bind(fd, (struct sockaddr *)&here, sizeof here) && !deaf) fail("port %u: %s", port, strerror(errno));
    return fd; /* a port in use is held by somebody else: as good */
}

static void answer(const struct seen *seen) {
    int here = 0;
    for (int i = 0; i < address_count; i++) here |= addresses[i].s_addr == seen->destination.s_addr;
    if (!here || answers < 0 || seen->damaged) return;
    struct wire reply = *seen->wire;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = reply.reply, .sin_addr = seen->source};
    reply.kind = KIND_REPLY;
    sendto(answers, &reply, sizeof reply, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to);
}

static void write_record(const void *record, size_t size) {
    if (written < MAX_RECORDS) fwrite(record, size, 1, records);
    if (++written == MAX_RECORDS) report("{\"event\": \"full\", \"records\": %d}", MAX_RECORDS);
}

/* The Ethernet header has no checksum: a frame whose addresses differ from the flow's is damaged. The addresses are
 * those that two packets in a row had; answers have them the other way round, so each direction has its own. */
static int strange_addresses(const unsigned char *frame, int point, int outgoing, uint16_t flow) {
    static struct { unsigned char known[12], last[12]; } flows[MAX_POINTS][2][256];
    if (flow >= 256) return 0;
    unsigned char *known = flows[point][outgoing][flow].known, *last = flows[point][outgoing][flow].last;
    int repeated = !memcmp(last, frame, 12);
    memcpy(last, frame, 12);
    if (repeated) memcpy(known, frame, 12);
    return (known[0] | known[1] | known[2] | known[3] | known[4] | known[5]) && memcmp(known, frame, 12);
}

static void record(int point, int type, uint64_t at, const unsigned char *frame, size_t captured, size_t length) {
    struct seen seen = examine(frame, captured, run);
    if (seen.wire && strange_addresses(frame, point, type == PACKET_OUTGOING, ntohs(seen.wire->flow))) seen.damaged = 1;
    uint8_t where = (type & 7) | (seen.damaged ? 0x80 : 0);
    if (!seen.wire) {
        struct other_record other = {.type = 'F', .point = point, .protocol = seen.protocol, .where = where, .tos = seen.tos,
                                     .ethertype = htole16(seen.ethertype), .length = htole16(length), .at = htole64(at),
                                     .source_port = htole16(seen.source_port), .destination_port = htole16(seen.destination_port)};
        if (captured >= 12) memcpy(other.destination_mac, frame, 6), memcpy(other.source_mac, frame + 6, 6);
        memcpy(other.source, &seen.source, 4), memcpy(other.destination, &seen.destination, 4);
        write_record(&other, sizeof other);
        return;
    }
    if (seen.wire->kind == KIND_RATE) busy = 1;
    if (seen.wire->kind == KIND_REQUEST && type != PACKET_OUTGOING) answer(&seen);
    struct ours_record ours = {.type = 'P', .point = point, .kind = seen.wire->kind, .where = where,
                               .flow = htole16(ntohs(seen.wire->flow)), .length = htole16(length), .at = htole64(at),
                               .sent = htole64(be64toh(seen.wire->sent)), .seq = htole32(ntohl(seen.wire->seq))};
    write_record(&ours, sizeof ours);
}

static uint64_t stamp(struct msghdr *message) {
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            return t.tv_sec * 1000000000ull + t.tv_nsec;
        }
    return realtime();
}

static int read_point(int fd, int point) {
    static unsigned char frames[BATCH][SNAP];
    static char controls[BATCH][128];
    static struct sockaddr_ll from[BATCH];
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){frames[i], SNAP};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1, .msg_control = controls[i],
                                              .msg_controllen = sizeof controls[i], .msg_name = &from[i], .msg_namelen = sizeof from[i]};
    }
    int count = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT | MSG_TRUNC, NULL);
    for (int i = 0; i < count; i++) {
        size_t length = messages[i].msg_len;
        record(point, from[i].sll_pkttype, stamp(&messages[i].msg_hdr), frames[i], length < SNAP ? length : SNAP, length);
    }
    return count;
}

/* Each comma-separated part of name= is handed to `each`. */
static int parts_of(char **argv, const char *name, void (*each)(const char *)) {
    const char *list = option(argv, name);
    int count = 0;
    if (!list) return 0;
    char *copy = strdup(list), *rest = copy, *part;
    while ((part = strsep(&rest, ",")))
        if (*part) each(part), count++;
    free(copy);
    return count;
}

static struct pollfd points[MAX_POINTS];
static int point_count, hold_count, rate_points;

static void add_point(const char *name) {
    if (point_count == MAX_POINTS) fail("more than %d interfaces", MAX_POINTS);
    points[point_count++] = (struct pollfd){.fd = open_point(name, rate_points), .events = POLLIN};
}

static void add_address(const char *text) {
    if (address_count == MAX_POINTS || inet_pton(AF_INET, text, &addresses[address_count++]) != 1) fail("address %s", text);
}

static void add_hold(const char *text) {
    if (++hold_count > MAX_HOLDS) fail("more than %d ports", MAX_HOLDS);
    hold(atoi(text), 1);
}

/* `dump` asks for everything so far by a file named flush; its going says that the records are complete. */
static void flush_if_asked(void) {
    char path[512];
    snprintf(path, sizeof path, "%s/flush", directory);
    if (access(path, F_OK)) return;
    for (int i = 0; i < point_count; i++)
        while (read_point(points[i].fd, i) == BATCH) {
        }
    fflush(records);
    unlink(path);
}

static void report_drops(void) {
    unsigned long dropped = 0;
    for (int i = 0; i < point_count; i++) {
        struct tpacket_stats stats;
        socklen_t size = sizeof stats;
        if (!getsockopt(points[i].fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size)) dropped += stats.tp_drops;
    }
    report("{\"event\": \"watched\", \"records\": %lu, \"dropped\": %lu}", written, dropped);
}

/* Nobody came to end us: whoever began this was interrupted, and will not tidy up. */
static void leave_nothing(void) {
    char path[512];
    DIR *listing = opendir(directory);
    if (!listing) return;
    for (struct dirent *one; (one = readdir(listing));) {
        snprintf(path, sizeof path, "%s/%s", directory, one->d_name);
        if (one->d_name[0] != '.') unlink(path);
    }
    closedir(listing);
    rmdir(directory);
}

int command_watch(char **argv) {
    char path[512];
    directory = need(argv, "dir");
    uint64_t end = monotonic() + (uint64_t)(number(argv, "limit", 60, 1, MAX_WATCH) * 1e9);
    run = number(argv, "run", 0, 0, 4294967295.0);
    calibration_port = number(argv, "calibration_port", 0, 0, 65535);
    parts_of(argv, "address", add_address);
    parts_of(argv, "hold", add_hold);
    rate_points = 0, parts_of(argv, "points", add_point);
    rate_points = 1, parts_of(argv, "receive", add_point);
    if (!point_count) fail("points= or receive= is needed");
    if (calibration_port) answers = hold(calibration_port, 0);
    snprintf(path, sizeof path, "%s/records", directory);
    if (!(records = fopen(path, "w"))) fail("%s: %s", path, strerror(errno));
    setvbuf(records, NULL, _IOFBF, 1 << 20);
    snprintf(path, sizeof path, "%s/events", directory);
    report_to(path);
    snprintf(path, sizeof path, "%s/watch.pid", directory);
    if (detach(path)) return 0;
    signal(SIGTERM, on_signal);
    while (!stopping && monotonic() < end) {
        int ready = poll(points, point_count, 50);
        flush_if_asked();
        if (busy) usleep(1000); /* then take many in one system call; no request is waiting for its answer */
        busy = 0;
        for (int i = 0; i < point_count && ready > 0; i++)
            if (points[i].revents) read_point(points[i].fd, i);
    }
    fclose(records);
    report_drops();
    if (!stopping) leave_nothing();
    return 0;
}
