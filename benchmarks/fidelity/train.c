/* Copyright: (c) 2026, impair.testbed contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Trains of numbered packets, and what an interface at the other end of the same kernel sees of them.
 *
 *   train send ADDRESS PORT COUNT RATE SIZE   COUNT UDP packets, RATE a second, frames of SIZE bytes with their Ethernet header
 *   train record INTERFACE SIZE FILE          frames of this size until SIGTERM; then how many the socket could not take
 *
 * A record is 24 bytes, little endian: the number, bytes of the frame, when it was sent and when it arrived (ns of the
 * realtime clock); the number is 2^32-1 where the contents were not what was sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEADERS (14 + 20 + 8) /* Ethernet, IPv4, UDP */
#define DAMAGED UINT32_MAX
#define LONGEST 1514
#define LATE 2000000 /* ns behind which no packet is made up for: the train stays a train */

struct payload {
	uint64_t sent; /* ns */
	uint32_t number, again; /* twice, so that damage shows */
} __attribute__((packed));

struct record {
	uint32_t number, length;
	uint64_t sent, arrived;
} __attribute__((packed));

static volatile sig_atomic_t ended;

static void end(int number)
{
	(void)number;
	ended = 1;
}

static uint64_t now(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return time.tv_sec * UINT64_C(1000000000) + time.tv_nsec;
}

static void send_train(const char *address, int port, uint32_t count, double rate, size_t size)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
	char data[LONGEST] = {0};
	struct payload *payload = (struct payload *)data;
	int descriptor = socket(AF_INET, SOCK_DGRAM, 0), buffer = 64 << 20;
	uint64_t due = now(CLOCK_MONOTONIC);

	if (size < HEADERS + sizeof *payload || size > LONGEST || inet_pton(AF_INET, address, &to.sin_addr) != 1)
		errx(2, "frames have %zu to %d bytes, and the address is IPv4's", HEADERS + sizeof *payload, LONGEST);
	setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
	for (uint32_t number = 0; number < count; number++) {
		struct timespec time = {due / 1000000000, due % 1000000000};

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
		*payload = (struct payload){now(CLOCK_REALTIME), number, number};
		if (sendto(descriptor, data, size - HEADERS, 0, (struct sockaddr *)&to, sizeof to) < 0)
			err(1, "sendto");
		due += (uint64_t)(1e9 / rate);
		if (now(CLOCK_MONOTONIC) > due + LATE)
			due = now(CLOCK_MONOTONIC);
	}
}

/* Whether a byte of the headers is the same in all frames of a train: not the IP identification and the checksums. */
static int constant(size_t at)
{
	return at != 18 && at != 19 && at != 24 && at != 25 && at != 40 && at != 41;
}

/* Whether the frame holds what was sent: headers as those of the first, both numbers alike, and zeros behind them. */
static int whole(const unsigned char *frame, size_t length, const struct payload *payload)
{
	static unsigned char first[HEADERS];
	static int known;

	if (!known++)
		memcpy(first, frame, HEADERS);
	for (size_t at = 0; at < HEADERS; at++)
		if (constant(at) && frame[at] != first[at])
			return 0;
	if (payload->number != payload->again)
		return 0;
	for (size_t at = HEADERS + sizeof *payload; at < length; at++)
		if (frame[at])
			return 0;
	return 1;
}

static void note(const unsigned char *frame, size_t length, uint64_t arrived, FILE *file)
{
	struct record record = {DAMAGED, length, 0, arrived};
	struct payload payload;

	memcpy(&payload, frame + HEADERS, sizeof payload);
	if (whole(frame, length, &payload))
		record.number = payload.number;
	record.sent = payload.sent;
	fwrite(&record, sizeof record, 1, file);
}

static void record_train(const char *interface, ssize_t size, const char *path)
{
	struct sockaddr_ll own = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int descriptor = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)), buffer = 128 << 20, on = 1;
	struct timeval patience = {0, 200000};
	struct tpacket_stats lost;
	socklen_t length = sizeof lost;
	FILE *file = fopen(path, "w");

	own.sll_ifindex = if_nametoindex(interface);
	if (descriptor < 0 || !file || bind(descriptor, (struct sockaddr *)&own, sizeof own))
		err(1, "%s, %s", interface, path);
	setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
	setsockopt(descriptor, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
	setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	puts("ready");
	fflush(stdout);
	while (!ended) {
		unsigned char frame[LONGEST + 100];
		char control[64];
		struct iovec part = {frame, sizeof frame};
		struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
		ssize_t taken = recvmsg(descriptor, &message, 0);
		struct cmsghdr *stamp = taken > 0 ? CMSG_FIRSTHDR(&message) : NULL;
		struct timespec time = {0};

		if (!stamp || taken != size)
			continue; /* nothing came, or what the interfaces say by themselves */
		memcpy(&time, CMSG_DATA(stamp), sizeof time);
		note(frame, taken, time.tv_sec * UINT64_C(1000000000) + time.tv_nsec, file);
	}
	fclose(file);
	getsockopt(descriptor, SOL_PACKET, PACKET_STATISTICS, &lost, &length);
	printf("%u\n", lost.tp_drops);
}

int main(int count, char **words)
{
	struct sigaction action = {.sa_handler = end};

	sigaction(SIGTERM, &action, NULL);
	if (count == 7 && !strcmp(words[1], "send"))
		send_train(words[2], atoi(words[3]), atol(words[4]), atof(words[5]), atol(words[6]));
	else if (count == 5 && !strcmp(words[1], "record") && atol(words[3]) >= (long)(HEADERS + sizeof(struct payload)))
		record_train(words[2], atol(words[3]), words[4]);
	else
		errx(2, "usage: train send ADDRESS PORT COUNT RATE SIZE | train record INTERFACE SIZE FILE");
	return 0;
}
