/* Copyright: (c) 2026, impair.testbed contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * send: numbered packets at an even pace. rtt: requests at an even pace, each timed by its answer.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

struct plan {
    struct flow flow;
    double rate;     /* packets a second */
    uint32_t count;
    uint64_t limit;  /* ns that sending may take */
    enum kind kind;
};

static struct plan plan_options(char **argv) {
    struct plan plan;
    flow_options(argv, &plan.flow);
    need(argv, "rate"), need(argv, "count"), need(argv, "limit");
    plan.rate = number(argv, "rate", 0, 0.01, MAX_RATE);
    plan.count = number(argv, "count", 0, 1, MAX_COUNT);
    plan.limit = number(argv, "limit", 0, 0.1, MAX_SECONDS) * 1e9;
    plan.kind = number(argv, "kind", KIND_TRAIN, KIND_TRAIN, KIND_REPLY);
    return plan;
}

/* A system call for each packet is what limits a small board: packets that are due anyway leave together. */
static unsigned due_by(const struct plan *plan, uint64_t start, uint32_t seq, uint64_t now) {
    unsigned most = plan->kind == KIND_RATE ? BATCH : 1;
    if (most > plan->count - seq) most = plan->count - seq;
    unsigned due = 1;
    while (due < most && start + (seq + due) / plan->rate * 1e9 <= now) due++;
    return due;
}

int command_send(char **argv) {
    static unsigned char packets[BATCH][SNAP];
    static size_t lengths[BATCH];
    struct plan plan = plan_options(argv);
    int fd = open_sender(&plan.flow), error = 0;
    report("{\"event\": \"start\", \"flow\": %u, \"kind\": %d, \"count\": %u, \"rate\": %.1f}", plan.flow.id, plan.kind,
           plan.count, plan.rate);
    uint64_t start = monotonic(), deadline = start + plan.limit, latest = 0;
    uint64_t lead = plan.kind == KIND_RATE ? BATCH / 2 / plan.rate * 1e9 : 0; /* let half a batch become due, */
    if (lead > 2000000) lead = 0;                                               /* where that takes 2 ms at most */
    uint32_t seq = 0;
    struct timeval patience = {.tv_usec = 200000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    while (seq < plan.count && !error) {
        uint64_t due = start + lead + seq / plan.rate * 1e9, now = monotonic();
        if (now > deadline) break;
        if (now < due) sleep_until(due), now = due;
        else if (now - due > latest) latest = now - due;
        unsigned batch = due_by(&plan, start, seq, now);
        for (unsigned i = 0; i < batch; i++) lengths[i] = build(&plan.flow, packets[i], plan.kind, seq + i);
        seq += send_batch(fd, packets, lengths, batch, deadline, &error);
    }
    double seconds = (monotonic() - start) / 1e9;
    report("{\"event\": \"sent\", \"flow\": %u, \"kind\": %d, \"sent\": %u, \"asked\": %u, \"seconds\": %.6f, "
           "\"latest_us\": %llu, \"error\": \"%s\"}",
           plan.flow.id, plan.kind, seq, plan.count, seconds, (unsigned long long)latest / 1000, error ? strerror(error) : "");
    close(fd);
    return error != 0;
}

static int open_answers(uint16_t port) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof here)) fail("reply=%u: %s", port, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    return fd;
}

/* Read one answer; its round trip in ns, or 0 where it is none of ours. */
static int64_t read_answer(int fd, const struct flow *flow, uint32_t *seq) {
    struct wire wire;
    char control[256];
    struct iovec part = {&wire, sizeof wire};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    if (recvmsg(fd, &message, MSG_DONTWAIT) < (ssize_t)sizeof wire) return 0;
    if (wire.magic != htonl(MAGIC) || wire.run != htonl(flow->run) || ntohs(wire.flow) % UNIMPAIRED != flow->id) return 0;
    uint64_t at = realtime();
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(c), sizeof t);
            at = t.tv_sec * 1000000000ull + t.tv_nsec;
        }
    *seq = ntohl(wire.seq);
    return at - be64toh(wire.sent);
}

static void collect(int fd, const struct plan *plan, int32_t *took, uint32_t *missing, uint64_t until) {
    for (;;) {
        uint64_t now = monotonic();
        if (now >= until || !*missing) return;
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        struct timespec left = {.tv_sec = (until - now) / 1000000000ull, .tv_nsec = (until - now) % 1000000000ull};
        if (ppoll(&wait, 1, &left, NULL) <= 0) continue;
        uint32_t seq = 0;
        int64_t ns = read_answer(fd, &plan->flow, &seq);
        if (ns > 0 && seq < plan->count && took[seq] < 0) took[seq] = ns / 1000, --*missing;
    }
}

/* Every `step`-th time from `first` on, as a list. */
static void list_times(char *text, const struct plan *plan, const int32_t *took, uint32_t first, uint32_t step) {
    *text = 0;
    for (uint32_t i = first; i < plan->count; i += step) text += sprintf(text, i == first ? "%d" : ", %d", took[i]);
}

static void report_times(const struct plan *plan, const int32_t *took, uint32_t step) {
    char *through = malloc(plan->count * 13 + 1), *aside = malloc(plan->count * 13 + 1);
    if (!through || !aside) fail("no memory");
    list_times(through, plan, took, 0, step);
    *aside = 0;
    if (step == 2) list_times(aside, plan, took, 1, step);
    report("{\"event\": \"rtt\", \"flow\": %u, \"us\": [%s], \"unimpaired_us\": [%s]}", plan->flow.id, through, aside);
    free(through), free(aside);
}

/* rtt with calibration=PORT: each request through the class is followed by one to that UDP port, half an interval later,
 * numbered in between; so both see the same load of the machines. */
static struct flow calibration_flow(char **argv, const struct flow *flow) {
    struct flow other = *flow;
    other.protocol = IPPROTO_UDP;
    other.destination_port = number(argv, "calibration", 0, 0, 65535);
    other.source_port = number(argv, "calibration_source", 0, 0, 65535);
    other.id += UNIMPAIRED;
    other.tos = other.mark = 0;
    other.length = 14 + 20 + 8 + sizeof(struct wire);
    return other;
}

int command_rtt(char **argv) {
    static unsigned char packet[SNAP];
    struct plan plan = plan_options(argv);
    struct flow calibration = calibration_flow(argv, &plan.flow);
    if (calibration.destination_port) plan.count *= 2, plan.rate *= 2;
    uint64_t patience = number(argv, "patience", 1, 0, MAX_SECONDS) * 1e9;
    int answers = open_answers(plan.flow.reply), fd = open_sender(&plan.flow), other = open_sender(&calibration);
    int32_t *took = malloc(plan.count * sizeof *took);
    if (!took) fail("no memory");
    for (uint32_t i = 0; i < plan.count; i++) took[i] = -1;
    report("{\"event\": \"start\", \"flow\": %u, \"kind\": %d, \"count\": %u, \"rate\": %.1f}", plan.flow.id, KIND_REQUEST,
           plan.count, plan.rate);
    uint32_t missing = plan.count;
    uint64_t start = monotonic(), deadline = start + plan.limit;
    for (uint32_t seq = 0; seq < plan.count && monotonic() < deadline; seq++) {
        collect(answers, &plan, took, &missing, start + (uint64_t)(seq / plan.rate * 1e9));
        int aside = calibration.destination_port && seq % 2;
        size_t length = build(aside ? &calibration : &plan.flow, packet, KIND_REQUEST, seq);
        int error = send_one(aside ? other : fd, packet, length, deadline);
        if (error) fail("flow %u: %s", plan.flow.id, strerror(error));
    }
    collect(answers, &plan, took, &missing, monotonic() + patience);
    report_times(&plan, took, calibration.destination_port ? 2 : 1);
    free(took);
    close(fd), close(other), close(answers);
    return 0;
}
