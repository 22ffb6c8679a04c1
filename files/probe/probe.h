/* Copyright: (c) 2026, impair.testbed contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * The measuring probe: sends numbered packets, answers and times them, and records what passes an interface.
 * One static program without dependencies, so that a node needs neither Python nor tcpdump to be measured.
 */
#ifndef PROBE_H
#define PROBE_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#define MAGIC 0x696d7031u /* "imp1": the first four bytes of every payload of ours */
#define SNAP 2048         /* bytes kept of a frame while it is examined */
#define BATCH 64          /* packets a system call takes */

/* Bounds that hold whatever the command line says: this program can offer a lot of traffic. */
#define MAX_COUNT 1000000.0
#define MAX_RATE 200000.0  /* packets a second */
#define MAX_SECONDS 300.0  /* for senders */
#define MAX_WATCH 1800.0   /* for recorders, in seconds */
#define MAX_RECORDS 600000 /* a recorder stops writing here and says so */

#define UNIMPAIRED 1000 /* added to a flow's number where a packet passes beside the class; numbers stay below it */

enum kind { KIND_TRAIN = 1, KIND_RATE = 2, KIND_REQUEST = 3, KIND_REPLY = 4 };

/* Payload header, network byte order. The rest of the payload is zero. */
struct wire {
    uint32_t magic;
    uint32_t run;   /* random number of one measuring run: keeps runs and labs apart */
    uint16_t flow;
    uint8_t kind;
    uint8_t spare;
    uint32_t seq;   /* from 0 */
    uint64_t sent;  /* CLOCK_REALTIME of the sender, ns */
    uint16_t reply; /* UDP port that a request is answered to */
    uint16_t spare2;
} __attribute__((packed));

/* What a recorder writes, little endian, 32 bytes each; the first byte tells which. */
struct ours_record {
    uint8_t type; /* 'P' */
    uint8_t point; /* index of the interface on the recorder's command line */
    uint8_t kind;
    uint8_t where; /* bits 0-2 the kernel's packet type (4: outgoing), bit 7 damaged */
    uint16_t flow;
    uint16_t length; /* layer 2, with the Ethernet header, without FCS */
    uint64_t at;     /* CLOCK_REALTIME of this node, ns */
    uint64_t sent;
    uint32_t seq;
    uint32_t spare;
} __attribute__((packed));

struct other_record {
    uint8_t type; /* 'F' */
    uint8_t point;
    uint8_t protocol;
    uint8_t where;
    uint16_t ethertype;
    uint16_t length;
    uint64_t at;
    uint8_t destination_mac[6];
    uint16_t source_port, destination_port;
    uint8_t source[4], destination[4]; /* IPv4; zero for anything else */
    uint8_t tos;
    uint8_t spare;
    uint8_t source_mac[6];
    uint8_t pad[6];
} __attribute__((packed));

_Static_assert(sizeof(struct wire) == 28, "the payload header is part of the protocol");
_Static_assert(sizeof(struct ours_record) == 32, "records are read by Python");
_Static_assert(sizeof(struct other_record) == 48, "records are read by Python");

/* A flow as the command line describes it. */
struct flow {
    struct sockaddr_in to, from;
    int protocol; /* IPPROTO_UDP, IPPROTO_TCP or IPPROTO_ICMP */
    uint16_t source_port, destination_port;
    int tos;
    uint32_t mark;
    uint32_t run;
    uint16_t id;
    uint16_t reply;
    int length;       /* layer 2 length of a frame */
    int send_buffer;  /* bytes; bounds what the sender's own kernel queues */
};

/* options.c: arguments are written name=value */
const char *option(char **argv, const char *name);
const char *need(char **argv, const char *name);
double number(char **argv, const char *name, double fallback, double low, double high);
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void flow_options(char **argv, struct flow *flow);

uint64_t realtime(void);
uint64_t monotonic(void);
void sleep_until(uint64_t monotonic_ns);

/* packet.c */
int header_length(int protocol);
size_t build(const struct flow *flow, unsigned char *packet, enum kind kind, uint32_t seq);
int open_sender(struct flow *flow);
int send_one(int fd, const unsigned char *packet, size_t length, uint64_t deadline);
unsigned send_batch(int fd, unsigned char packets[][SNAP], const size_t *lengths, unsigned count, uint64_t deadline, int *error);
struct seen {
    const struct wire *wire; /* NULL: not a packet of ours that can be read */
    int damaged;             /* of ours by its place and shape, but not intact */
    int protocol, tos, ethertype;
    uint16_t source_port, destination_port;
    struct in_addr source, destination;
};
struct seen examine(const unsigned char *frame, size_t captured, uint32_t run);

/* output.c */
void report_to(const char *path);
void report(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* commands */
int command_send(char **argv);
int command_rtt(char **argv);
int command_watch(char **argv);
int command_run(char **argv);
int command_stop(char **argv);
int command_dump(char **argv);
int detach(const char *pid_file);

#endif
