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

int command_send(char **argv) {
    static unsigned char packet[SNAP];
    struct plan plan = plan_options(argv);
    int fd = open_sender(&plan.flow), error = 0;
    report("{\"event\": \"start\", \"flow\": %u, \"kind\": %d, \"count\": %u, \"rate\": %.1f}", plan.flow.id, plan.kind,
           plan.count, plan.rate);
    uint64_t start = monotonic(), deadline = start + plan.limit, latest = 0;
    uint32_t seq = 0;
    struct timeval patience = {.tv_usec = 200000};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    for (; seq < plan.count; seq++) {
        uint64_t due = start + seq / plan.rate * 1e9, now = monotonic();
        if (now > deadline) break;
        if (now < due) sleep_until(due);
        else if (now - due > latest) latest = now - due;
        size_t length = build(&plan.flow, packet, plan.kind, seq);
        if ((error = send_one(fd, packet, length, deadline))) break;
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
    if (wire.magic != htonl(MAGIC) || wire.run != htonl(flow->run) || wire.flow != htons(flow->id)) return 0;
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

static void report_times(const struct plan *plan, const int32_t *took, uint32_t answered) {
    char *list = malloc(plan->count * 12 + 1), *end = list;
    if (!list) fail("no memory");
    *list = 0;
    for (uint32_t i = 0; i < plan->count; i++) end += sprintf(end, i ? ", %d" : "%d", took[i]);
    report("{\"event\": \"rtt\", \"flow\": %u, \"sent\": %u, \"answered\": %u, \"us\": [%s]}", plan->flow.id, plan->count, answered, list);
    free(list);
}

int command_rtt(char **argv) {
    static unsigned char packet[SNAP];
    struct plan plan = plan_options(argv);
    uint64_t patience = number(argv, "patience", 1, 0, MAX_SECONDS) * 1e9;
    int answers = open_answers(plan.flow.reply), fd = open_sender(&plan.flow);
    int32_t *took = malloc(plan.count * sizeof *took);
    if (!took) fail("no memory");
    for (uint32_t i = 0; i < plan.count; i++) took[i] = -1;
    report("{\"event\": \"start\", \"flow\": %u, \"kind\": %d, \"count\": %u, \"rate\": %.1f}", plan.flow.id, KIND_REQUEST,
           plan.count, plan.rate);
    uint32_t missing = plan.count;
    uint64_t start = monotonic(), deadline = start + plan.limit;
    for (uint32_t seq = 0; seq < plan.count && monotonic() < deadline; seq++) {
        collect(answers, &plan, took, &missing, start + (uint64_t)(seq / plan.rate * 1e9));
        size_t length = build(&plan.flow, packet, KIND_REQUEST, seq);
        int error = send_one(fd, packet, length, deadline);
        if (error) fail("flow %u: %s", plan.flow.id, strerror(error));
    }
    collect(answers, &plan, took, &missing, monotonic() + patience);
    report_times(&plan, took, plan.count - missing);
    free(took);
    close(fd), close(answers);
    return 0;
}
