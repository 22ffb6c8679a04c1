// Copyright: (c) 2026, impair.testbed contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
// Sends COUNT small IPv4/UDP packets through an interface's egress qdisc, 64 a system call, to SPREAD destinations in turn,
// and prints the nanoseconds that one took. The namespace holds a veth pair: nobody else gets these packets.
// usage: flood INTERFACE COUNT SPREAD
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, LENGTH = 60, STRIDE = 7919 };

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1e9 + at.tv_nsec;
}

static void fill(unsigned char *packet)
{
    static const unsigned char ethernet[14] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0};
    static const unsigned char ip[20] = {0x45, 0, 0, LENGTH - 14, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1};
    memset(packet, 0, LENGTH);
    memcpy(packet, ethernet, sizeof ethernet);
    memcpy(packet + 14, ip, sizeof ip);
    packet[37] = 9; // discard
    packet[39] = LENGTH - 34;
}

// Of the IP header (RFC 1071): netfilter drops packets where it is wrong.
static void checksum(unsigned char *header)
{
    uint32_t sum = 0;
    header[10] = header[11] = 0;
    for (int i = 0; i < 20; i += 2)
        sum += header[i] << 8 | header[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~(sum + (sum >> 16));
    header[10] = sum >> 8;
    header[11] = sum;
}

int main(int argc, char **argv)
{
    static unsigned char packets[BATCH][LENGTH];
    struct mmsghdr messages[BATCH] = {0};
    struct iovec parts[BATCH];
    struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_halen = 6};
    if (argc != 4)
        return 2;
    long count = atol(argv[2]), spread = atol(argv[3]), sent = 0, next = 0;
    int socket_ = socket(AF_PACKET, SOCK_RAW, 0);
    to.sll_ifindex = if_nametoindex(argv[1]);
    to.sll_protocol = htons(ETH_P_IP);
    if (socket_ < 0 || !to.sll_ifindex || spread < 1)
        return perror(argv[1]), 1;
    for (int i = 0; i < BATCH; i++) {
        fill(packets[i]);
        parts[i] = (struct iovec){packets[i], LENGTH};
        messages[i].msg_hdr = (struct msghdr){.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &parts[i], .msg_iovlen = 1};
    }
    double start = now();
    while (sent < count) {
        for (int i = 0; i < BATCH; i++, next = (next + STRIDE) % spread) {
            uint32_t address = htonl(0x0a000000u + (uint32_t)next);
            memcpy(packets[i] + 30, &address, 4);
            checksum(packets[i] + 14);
        }
        int took = sendmmsg(socket_, messages, BATCH, 0);
        if (took < 0)
            return perror("sendmmsg"), 1;
        sent += took;
    }
    printf("%.1f\n", (now() - start) / sent);
    return 0;
}
