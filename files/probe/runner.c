/* Copyright: (c) 2026, impair.testbed contributors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * run: several chains of commands side by side, in the background. stop: end what runs. dump: records as base64.
 */
#define _GNU_SOURCE
#include "probe.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_CHAINS 64
#define MAX_ARGUMENTS 32

/* Go on in the background, in a session of its own; 1 in the parent, once the pid file is written. */
int detach(const char *pid_file) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) fail("fork: %s", strerror(errno));
    if (pid) {
        FILE *file = fopen(pid_file, "w");
        if (!file || fprintf(file, "%d\n", pid) < 0 || fclose(file)) {
            kill(pid, SIGKILL);
            fail("%s: %s", pid_file, strerror(errno));
        }
        return 1;
    }
    setsid();
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (null > 2) close(null);
    return 0;
}

static int run_line(char *line) {
    char *argv[MAX_ARGUMENTS + 1] = {0}, *word;
    int count = 0;
    while ((word = strsep(&line, " \n")))
        if (*word && count < MAX_ARGUMENTS) argv[count++] = word;
    if (!count) return 0;
    if (!strcmp(argv[0], "send")) return command_send(argv + 1);
    if (!strcmp(argv[0], "rtt")) return command_rtt(argv + 1);
    if (!strcmp(argv[0], "wait")) return sleep_until(monotonic() + number(argv + 1, "seconds", 0, 0, MAX_SECONDS) * 1e9), 0;
    fail("unknown command %s in a script", argv[0]);
}

/* A script's lines read "chain command name=value …"; lines of one chain run one after the other. */
static int run_chain(const char *script, int chain) {
    char line[1024];
    int bad = 0;
    FILE *file = fopen(script, "r");
    if (!file) fail("%s: %s", script, strerror(errno));
    while (fgets(line, sizeof line, file)) {
        char *rest = line;
        char *number = strsep(&rest, " ");
        if (rest && atoi(number) == chain) bad |= run_line(rest);
    }
    fclose(file);
    return bad;
}

static int chains_in(const char *script) {
    char line[1024];
    int most = -1;
    FILE *file = fopen(script, "r");
    if (!file) fail("%s: %s", script, strerror(errno));
    while (fgets(line, sizeof line, file))
        if (atoi(line) > most) most = atoi(line);
    fclose(file);
    if (most >= MAX_CHAINS) fail("more than %d chains", MAX_CHAINS);
    return most + 1;
}

int command_run(char **argv) {
    char script[512], path[512];
    const char *directory = need(argv, "dir"), *stage = need(argv, "stage");
    snprintf(path, sizeof path, "%s/events", directory);
    report_to(path);
    snprintf(script, sizeof script, "%s/stage-%s", directory, stage);
    int chains = chains_in(script);
    snprintf(path, sizeof path, "%s/run.pid", directory);
    if (detach(path)) return 0;
    for (int chain = 0; chain < chains; chain++)
        if (!fork()) {
            alarm(2 * MAX_SECONDS); /* a last bound, whatever a command waits for */
            _exit(run_chain(script, chain));
        }
    int bad = 0, status;
    while (wait(&status) > 0) bad |= status != 0;
    report("{\"event\": \"end\", \"stage\": \"%s\", \"ok\": %s}", stage, bad ? "false" : "true");
    return 0;
}

/* Only a process that still runs this very program is ours to end. */
static int is_probe(pid_t pid) {
    char path[64], theirs[PATH_MAX], mine[PATH_MAX];
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    ssize_t length = readlink(path, theirs, sizeof theirs), own = readlink("/proc/self/exe", mine, sizeof mine);
    return length > 0 && length == own && !memcmp(theirs, mine, length);
}

static void end_process(pid_t pid) {
    if (!is_probe(pid)) return;
    kill(-pid, SIGTERM); /* detach() made it the leader of its own group */
    for (int i = 0; i < 200 && is_probe(pid); i++) usleep(10000);
    if (is_probe(pid)) kill(-pid, SIGKILL);
    for (int i = 0; i < 200 && is_probe(pid); i++) usleep(10000);
    report(is_probe(pid) ? "{\"event\": \"error\", \"error\": \"process %d does not end\"}" : "{\"event\": \"ended\", \"pid\": %d}", pid);
}

int command_stop(char **argv) {
    char path[512];
    const char *directory = need(argv, "dir");
    const char *const names[] = {"run.pid", "watch.pid"};
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        FILE *file = fopen(path, "r");
        int pid = 0;
        if (!file) continue;
        if (fscanf(file, "%d", &pid) == 1 && pid > 1) end_process(pid);
        fclose(file);
        unlink(path);
    }
    return 0;
}

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* Have the recorder write out everything that it has seen so far. */
static void ask_for_flush(const char *directory) {
    char path[512];
    snprintf(path, sizeof path, "%s/flush", directory);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) fail("%s: %s", path, strerror(errno));
    close(fd);
    for (int i = 0; i < 500 && !access(path, F_OK); i++) usleep(10000);
    if (!unlink(path)) fail("the recorder in %s does not answer", directory);
}

/* The bytes of dir/records from offset= on, as one line of base64 (RFC 4648). */
int command_dump(char **argv) {
    char path[512];
    unsigned char in[3];
    size_t got;
    const char *directory = need(argv, "dir");
    ask_for_flush(directory);
    snprintf(path, sizeof path, "%s/records", directory);
    FILE *file = fopen(path, "r");
    if (!file) fail("%s: %s", path, strerror(errno));
    fseek(file, number(argv, "offset", 0, 0, 1e9), SEEK_SET);
    while ((got = fread(in, 1, 3, file)) > 0) {
        if (got < 3) memset(in + got, 0, 3 - got);
        uint32_t bits = in[0] << 16 | in[1] << 8 | in[2];
        putchar(letters[bits >> 18]), putchar(letters[bits >> 12 & 63]);
        putchar(got > 1 ? letters[bits >> 6 & 63] : '='), putchar(got > 2 ? letters[bits & 63] : '=');
    }
    putchar('\n');
    return fclose(file);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*command)(char **);
    } commands[] = {{"send", command_send}, {"rtt", command_rtt},   {"watch", command_watch},
                    {"run", command_run},   {"stop", command_stop}, {"dump", command_dump}};
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(argv[1], commands[i].name)) return commands[i].command(argv + 2);
    fprintf(stderr, "usage: probe send|rtt|watch|run|stop|dump name=value ...\n");
    return 2;
}
