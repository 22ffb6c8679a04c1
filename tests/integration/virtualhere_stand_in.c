// Copyright: (c) 2026, impair.testbed contributors
// GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
//
// A stand-in for VirtualHere's USB server, for tests: it shares nothing. Called as the real one, it reads TCPPort from
// config.ini, writes a line of its own there, listens, and tells whoever connects which version it is and what it read.
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char held[4096] = "", *port;
	struct sockaddr_in address = {.sin_family = AF_INET};
	int listening = socket(AF_INET, SOCK_STREAM, 0), on = 1;
	FILE *config = argc > 2 && !strcmp(argv[1], "-c") ? fopen(argv[2], "r+") : NULL;

	if (!config) {
		fprintf(stderr, "stand-in: no config.ini\n");
		return 1;
	}
	fread(held, 1, sizeof held - 1, config);
	if (!strstr(held, "StandInWrote="))
		fprintf(config, "StandInWrote=1\n");
	fclose(config);
	port = strstr(held, "TCPPort=");
	address.sin_port = htons(port ? atoi(port + 8) : 7575);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 5)) {
		perror("stand-in");
		return 1;
	}
	for (;;) {
		int peer = accept(listening, NULL, NULL);

		dprintf(peer, "stand-in " VERSION "\n%s", held);
		close(peer);
	}
}
