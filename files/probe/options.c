/* Copyright: (c) 2026, impair.testbed contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Arguments (name=value), clocks, and where results are written.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int report_fd = STDOUT_FILENO;

void report_to(const char *path) {
    report_fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (report_fd < 0) fail("%s: %s", path, strerror(errno));
}

/* One write per line: several processes append to the same file. */
void report(const char *format, ...) {
    char *line = NULL;
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(&line, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    line[length] = '\n';  /* in the place of the terminating zero */
    if (write(report_fd, line, length + 1) < 0) _exit(3);
    free(line);
}

void fail(const char *format, ...) {
    char text[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    for (char *c = text; *c; c++)
        if (*c == '"' || *c == '\\' || *c < ' ') *c = '\'';
    report("{\"event\": \"error\", \"error\": \"%s\"}", text);
    if (report_fd != STDOUT_FILENO) fprintf(stderr, "probe: %s\n", text);
    _exit(2);
}

const char *option(char **argv, const char *name) {
    size_t length = strlen(name);
    for (; *argv; argv++)
        if (!strncmp(*argv, name, length) && (*argv)[length] == '=') return *argv + length + 1;
    return NULL;
}

const char *need(char **argv, const char *name) {
    const char *value = option(argv, name);
    if (!value) fail("%s= is missing", name);
    return value;
}

double number(char **argv, const char *name, double fallback, double low, double high) {
    const char *text = option(argv, name);
    char *end;
    if (!text) return fallback;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= low && value <= high))
        fail("%s=%s: a number from %g to %g is expected", name, text, low, high);
    return value;
}

static int protocol_number(const char *text) {
    if (!strcmp(text, "udp")) return IPPROTO_UDP;
    if (!strcmp(text, "tcp")) return IPPROTO_TCP;
    if (!strcmp(text, "icmp")) return IPPROTO_ICMP;
    fail("protocol=%s: udp, tcp or icmp is expected", text);
}

void flow_options(char **argv, struct flow *flow) {
    memset(flow, 0, sizeof *flow);
    flow->to.sin_family = flow->from.sin_family = AF_INET;
    if (inet_pton(AF_INET, need(argv, "to"), &flow->to.sin_addr) != 1) fail("to= is no IPv4 address");
    const char *from = option(argv, "from");
    if (from && inet_pton(AF_INET, from, &flow->from.sin_addr) != 1) fail("from= is no IPv4 address");
    flow->protocol = protocol_number(need(argv, "protocol"));
    flow->source_port = number(argv, "source_port", 0, 0, 65535);
    flow->destination_port = number(argv, "destination_port", 0, 0, 65535);
    flow->tos = number(argv, "tos", 0, 0, 255);
    flow->mark = number(argv, "mark", 0, 0, 4294967295.0);
    flow->run = number(argv, "run", 0, 0, 4294967295.0);
    flow->id = number(argv, "flow", 0, 0, 65535);
    flow->reply = number(argv, "reply", 0, 0, 65535);
    flow->send_buffer = number(argv, "send_buffer", 4194304, 4096, 268435456);
    int least = 14 + 20 + header_length(flow->protocol) + sizeof(struct wire);
    flow->length = number(argv, "length", least, least, 1514);
}

static uint64_t now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

uint64_t realtime(void) { return now(CLOCK_REALTIME); }
uint64_t monotonic(void) { return now(CLOCK_MONOTONIC); }

void sleep_until(uint64_t at) {
    struct timespec t = {.tv_sec = at / 1000000000ull, .tv_nsec = at % 1000000000ull};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) {
    }
}
