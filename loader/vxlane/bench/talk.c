// SPDX-License-Identifier: Apache-2.0
/* Both ends of the bench's small traffic. `talk` without arguments prints how it is called.
 *
 * One file in C, because an interpreter takes longer for a request than the network does. The bench
 * compiles it when it starts. A client prints whole numbers on one line.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	MESSAGE = 64, /* bytes of a request and of its response */
	SINK = 's', /* first byte of a datagram that wants no response */
	LONGEST = 2048, /* bytes of a datagram */
	MOST = 1 << 22, /* round trips that are remembered */
	MOST_FLOWS = 4096,
	EVENTS = 64,
};

static const uint64_t SECOND = 1000000000;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static void sleep_until(uint64_t when)
{
	struct timespec t = {when / SECOND, when % SECOND};

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
		;
}

static struct sockaddr_in place(const char *address, const char *port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};

	if (!inet_aton(address, &at.sin_addr))
		fail(address);
	return at;
}

static int dial(int type, const struct sockaddr_in *at)
{
	int one = 1, fd = socket(AF_INET, type, 0);
	struct timeval patience = {1, 0}; /* a datagram may get lost */

	if (fd < 0 || connect(fd, (const struct sockaddr *)at, sizeof(*at)))
		fail("connect");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (type == SOCK_STREAM)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* One request and its response; 0 if that got lost. */
static int exchange(int fd, int type)
{
	char message[MESSAGE] = {0};
	ssize_t got;

	if (send(fd, message, MESSAGE, 0) != MESSAGE)
		fail("send");
	got = recv(fd, message, MESSAGE, type == SOCK_STREAM ? MSG_WAITALL : 0);
	if (got < 0 && errno == EAGAIN && type == SOCK_DGRAM)
		return 0;
	if (got != MESSAGE)
		fail("no response");
	return 1;
}

static int longer(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

/* Prints the count, and the median, 99th and 99.9th percentile in ns. */
static void report(uint32_t *took, size_t count)
{
	if (!count)
		fail("no exchange was completed");
	qsort(took, count, sizeof(*took), longer);
	printf("%zu %u %u %u\n", count, took[count / 2], took[count * 99 / 100],
	       took[count * 999 / 1000]);
}

/* Requests one after the other on one connection. */
static void ask(int type, const struct sockaddr_in *at, double seconds)
{
	uint32_t *took = malloc(MOST * sizeof(*took));
	int fd = dial(type, at);
	uint64_t end, began;
	size_t count = 0;

	for (int warm = 0; warm < 20; warm++)
		exchange(fd, type);
	end = now() + seconds * SECOND;
	while ((began = now()) < end && count < MOST)
		if (exchange(fd, type))
			took[count++] = now() - began;
	report(took, count);
}

/* A connection for each request, to `ports` ports in turn. Of the 28,232 ports that a client has by
 * default connect() takes every other one. When all of these are in TIME_WAIT, for a minute, to
 * find another takes 3 ms, and one server port is called so often in 1.3 s. */
static void ask_anew(int ports, struct sockaddr_in at, double seconds)
{
	uint32_t *took = malloc(MOST * sizeof(*took));
	uint64_t began, end = now() + seconds * SECOND;
	uint16_t first = ntohs(at.sin_port);
	size_t count = 0;

	while ((began = now()) < end && count < MOST) {
		int fd;

		at.sin_port = htons(first + count % ports);
		fd = dial(SOCK_STREAM, &at);
		exchange(fd, SOCK_STREAM);
		/* Closing is sending a FIN; the time is that until the response. */
		took[count++] = now() - began;
		close(fd);
	}
	report(took, count);
}

/* `flows` connections; each has a request every `every` seconds. */
static void ask_slowly(int flows, double every, const struct sockaddr_in *at, double seconds)
{
	static int fds[MOST_FLOWS];
	uint32_t *took = malloc(MOST * sizeof(*took));
	uint64_t began, due, end, pause = every * SECOND / flows;
	size_t count = 0;

	for (int i = 0; i < flows; i++) {
		fds[i] = dial(SOCK_STREAM, at);
		exchange(fds[i], SOCK_STREAM);
	}
	due = now();
	for (end = due + seconds * SECOND; due < end && count < MOST; due += pause) {
		sleep_until(due);
		began = now();
		exchange(fds[count % flows], SOCK_STREAM);
		took[count++] = now() - began;
	}
	report(took, count);
}

/* Datagrams that want no response, `rate` a second, or as many as can be; prints how many. */
static void pour(size_t size, double rate, const struct sockaddr_in *at, double seconds)
{
	const uint64_t tick = SECOND / 1000;
	static char message[LONGEST];
	int fd = dial(SOCK_DGRAM, at);
	uint64_t sent = 0, due = now(), end = due + seconds * SECOND;
	uint64_t began = due;

	message[0] = SINK;
	while (now() < end) {
		uint64_t until = rate ? rate * (due - began + tick) / SECOND : sent + 64;

		for (; sent < until; sent++)
			if (send(fd, message, size, 0) < 0 && errno != ENOBUFS &&
			    errno != ECONNREFUSED)
				fail("send");
		due += tick;
		if (rate)
			sleep_until(due);
	}
	printf("%lu\n", sent);
}

static int listener(int type, uint16_t port)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
	int one = 1, room = 4 << 20, fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (bind(fd, (struct sockaddr *)&at, sizeof(at)))
		fail("bind");
	if (type == SOCK_STREAM && listen(fd, MOST_FLOWS))
		fail("listen");
	return fd;
}

enum kind {
	DATAGRAMS,
	LISTENER,
	CONNECTION,
};

static void watch(int epoll, enum kind kind, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | fd};

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event))
		fail("epoll_ctl");
}

static void answer_datagrams(int fd)
{
	static char message[LONGEST];
	struct sockaddr_in from;
	socklen_t size;
	ssize_t got;

	for (int i = 0; i < EVENTS; i++) {
		size = sizeof(from);
		got = recvfrom(fd, message, sizeof(message), 0, (struct sockaddr *)&from, &size);
		if (got < 0)
			return;
		if (message[0] != SINK)
			sendto(fd, message, got, 0, (struct sockaddr *)&from, size);
	}
}

/* Sends back what it gets, and the client closes first, so that TIME_WAIT is the client's. */
static void serve(uint16_t first, int ports)
{
	int epoll = epoll_create1(0), one = 1;
	struct epoll_event ready[EVENTS];
	char message[LONGEST];

	for (int i = 0; i < ports; i++) {
		watch(epoll, LISTENER, listener(SOCK_STREAM, first + i));
		watch(epoll, DATAGRAMS, listener(SOCK_DGRAM, first + i));
	}
	for (;;) {
		int count = epoll_wait(epoll, ready, EVENTS, -1);

		for (int i = 0; i < count; i++) {
			enum kind kind = ready[i].data.u64 >> 32;
			int fd = (uint32_t)ready[i].data.u64;

			if (kind == DATAGRAMS) {
				answer_datagrams(fd);
			} else if (kind == LISTENER) {
				fd = accept(fd, NULL, NULL);
				if (fd >= 0) {
					setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
					watch(epoll, CONNECTION, fd);
				}
			} else {
				ssize_t got = recv(fd, message, sizeof(message), 0);

				if (got <= 0 || send(fd, message, got, MSG_NOSIGNAL) != got)
					close(fd);
			}
		}
	}
}

/* Keeps the CPU that it is on from halting. No pause instruction: a hypervisor may take many of
 * them for the wait for a lock, and give the CPU to another guest. */
static void spin(void)
{
	for (;;)
		__asm__ volatile("");
}

static int usage(void)
{
	fputs("talk serve PORT [COUNT]                      on COUNT ports from PORT on\n"
	      "talk spin                                    until it is killed\n"
	      "talk tcp|udp ADDRESS PORT SECONDS            prints COUNT P50 P99 P99.9, in ns\n"
	      "talk connect ADDRESS PORT SECONDS PORTS      the same; a connection for each "
	      "request\n"
	      "talk slow ADDRESS PORT SECONDS FLOWS EVERY   the same; a request EVERY seconds\n"
	      "talk pour ADDRESS PORT SECONDS SIZE RATE     prints COUNT; RATE 0: without a "
	      "limit\n",
	      stderr);
	return 2;
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	struct sockaddr_in at;
	double seconds;

	if ((argc == 3 || argc == 4) && !strcmp(what, "serve"))
		serve(atoi(argv[2]), argc == 4 ? atoi(argv[3]) : 1);
	if (argc == 2 && !strcmp(what, "spin"))
		spin();
	if (argc < 5)
		return usage();
	at = place(argv[2], argv[3]);
	seconds = atof(argv[4]);
	if (!strcmp(what, "tcp"))
		ask(SOCK_STREAM, &at, seconds);
	else if (!strcmp(what, "udp"))
		ask(SOCK_DGRAM, &at, seconds);
	else if (argc == 6 && !strcmp(what, "connect") && atoi(argv[5]) > 0)
		ask_anew(atoi(argv[5]), at, seconds);
	else if (argc == 7 && !strcmp(what, "slow") && atoi(argv[5]) <= MOST_FLOWS)
		ask_slowly(atoi(argv[5]), atof(argv[6]), &at, seconds);
	else if (argc == 7 && !strcmp(what, "pour") && atoi(argv[5]) <= LONGEST)
		pour(atoi(argv[5]), atof(argv[6]), &at, seconds);
	else
		return usage();
	return 0;
}
