/* Copyright: (c) 2026, impair.testbed contributors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Load for tests that judge a change: numbered UDP packets to some ports in turn, and who counts them at the other end.
 *
 *   load send ADDRESS PORT PORTS RATE     RATE packets per second to PORT … PORT+PORTS-1, until SIGTERM; prints how many
 *   load receive PORT PORTS               counts until SIGTERM and until nothing came for a second; prints what came
 *   load list PORT FILE                   the same for one port, and prints nothing: its packets' numbers go to FILE, 64 bits each
 *
 * The first two print one line a port: `PORT SENT`, or `PORT RECEIVED REORDERED LEAST MOST` with the least and the greatest time on
 * the way in microseconds (both ends read the same clock: they run on one kernel).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_PORTS 16
#define LATE 2000000   /* ns behind which a sender does not catch up: it would make a burst that nobody asked for */
#define QUIET 1000     /* ms without a packet after which nothing is under way any more */

struct packet {
	uint64_t number;
	int64_t sent; /* ns */
};

struct port {
	uint64_t count, reordered, highest;
	int64_t least, most;
};

static volatile sig_atomic_t ended;

static void end(int signal_number)
{
	(void)signal_number;
	ended = 1;
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * INT64_C(1000000000) + time.tv_nsec;
}

static int udp_socket(void)
{
	int size = 64 << 20, descriptor = socket(AF_INET, SOCK_DGRAM, 0);

	if (descriptor < 0)
		err(1, "socket");
	setsockopt(descriptor, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	setsockopt(descriptor, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
	return descriptor;
}

static void pause_until(int64_t moment)
{
	struct timespec time = {moment / 1000000000, moment % 1000000000};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static void send_all(const char *address, int first, int ports, int rate)
{
	struct sockaddr_in to = {.sin_family = AF_INET};
	struct packet packet = {0};
	uint64_t sent[MOST_PORTS] = {0};
	int descriptor = udp_socket();
	int64_t due = now();

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1)
		errx(2, "no IPv4 address: %s", address);
	for (int port = 0; !ended; port = (port + 1) % ports) {
		pause_until(due);
		packet.number = sent[port];
		packet.sent = now();
		to.sin_port = htons(first + port);
		if (sendto(descriptor, &packet, sizeof packet, 0, (struct sockaddr *)&to, sizeof to) != sizeof packet)
			err(1, "sendto");
		sent[port]++;
		due += 1000000000 / rate;
		if (now() - due > LATE)
			due = now();
	}
	for (int port = 0; port < ports; port++)
		printf("%d %" PRIu64 "\n", first + port, sent[port]);
}

static void take(int descriptor, struct port *port)
{
	struct packet packet;

	while (recv(descriptor, &packet, sizeof packet, MSG_DONTWAIT) == sizeof packet) {
		int64_t way = now() - packet.sent;

		if (port->count && packet.number < port->highest)
			port->reordered++;
		else
			port->highest = packet.number;
		if (!port->count || way < port->least)
			port->least = way;
		if (way > port->most)
			port->most = way;
		port->count++;
	}
}

static void receive_all(int first, int ports)
{
	struct pollfd places[MOST_PORTS];
	struct port found[MOST_PORTS] = {{0}};

	for (int port = 0; port < ports; port++) {
		struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(first + port)};

		places[port] = (struct pollfd){udp_socket(), POLLIN, 0};
		if (bind(places[port].fd, (struct sockaddr *)&own, sizeof own))
			err(1, "bind");
	}
	puts("ready");
	fflush(stdout);
	for (;;) {
		int ready = poll(places, ports, QUIET);

		if (!ready && ended)
			break;
		for (int port = 0; ready > 0 && port < ports; port++)
			if (places[port].revents)
				take(places[port].fd, &found[port]);
	}
	for (int port = 0; port < ports; port++)
		printf("%d %" PRIu64 " %" PRIu64 " %" PRId64 " %" PRId64 "\n", first + port, found[port].count,
		       found[port].reordered, found[port].least / 1000, found[port].most / 1000);
}

static void list_all(int port, const char *path)
{
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct pollfd place = {udp_socket(), POLLIN, 0};
	FILE *file = fopen(path, "w");
	struct packet packet;

	if (!file || bind(place.fd, (struct sockaddr *)&own, sizeof own))
		err(1, "%s", path);
	puts("ready");
	fflush(stdout);
	while (poll(&place, 1, QUIET) != 0 || !ended)
		while (recv(place.fd, &packet, sizeof packet, MSG_DONTWAIT) == sizeof packet)
			fwrite(&packet.number, sizeof packet.number, 1, file);
	if (fclose(file))
		err(1, "%s", path);
}

int main(int count, char **words)
{
	struct sigaction action = {.sa_handler = end};

	sigaction(SIGTERM, &action, NULL);
	if (count == 6 && !strcmp(words[1], "send") && atoi(words[4]) <= MOST_PORTS)
		send_all(words[2], atoi(words[3]), atoi(words[4]), atoi(words[5]));
	else if (count == 4 && !strcmp(words[1], "receive") && atoi(words[3]) <= MOST_PORTS)
		receive_all(atoi(words[2]), atoi(words[3]));
	else if (count == 4 && !strcmp(words[1], "list"))
		list_all(atoi(words[2]), words[3]);
	else
		errx(2, "usage: load send ADDRESS PORT PORTS RATE | load receive PORT PORTS | load list PORT FILE");
	return 0;
}
