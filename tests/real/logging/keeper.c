/* A log plugin without any library: keeps the frames of each container in /ID, whole ones only, and reads them back. */

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int all(int from, char *to, size_t size)
{
	for (size_t got = 0; got < size;) {
		ssize_t now = read(from, to + got, size - got);
		if (now <= 0)
			return 0;
		got += now;
	}
	return 1;
}

static void keep(const char *fifo, const char *file)
{
	static char frame[4 + (1 << 20)];
	int from = open(fifo, O_RDONLY), to = open(file, O_WRONLY | O_CREAT | O_APPEND, 0600);

	while (from >= 0 && to >= 0 && all(from, frame, 4)) {
		uint32_t size = (uint32_t)(uint8_t)frame[0] << 24 | (uint8_t)frame[1] << 16 | (uint8_t)frame[2] << 8 |
				(uint8_t)frame[3];
		if (size > 1 << 20 || !all(from, frame + 4, size) || write(to, frame, 4 + size) < 0)
			break;
	}
	_exit(0);
}

/* The text of a JSON member whose value needs no unescaping. */
static int member(const char *body, const char *name, char *value, size_t size)
{
	char key[64];
	snprintf(key, sizeof key, "\"%s\":\"", name);
	const char *begin = strstr(body, key), *end;
	if (!begin || !(end = strchr(begin += strlen(key), '"')) || (size_t)(end - begin) >= size)
		return 0;
	memcpy(value, begin, end - begin);
	value[end - begin] = 0;
	return 1;
}

static void answer(int client, const char *body, size_t size)
{
	dprintf(client, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n", size);
	if (write(client, body, size) < 0)
		perror("write");
}

static void send_back(int client, const char *file)
{
	struct stat facts;
	int from = open(file, O_RDONLY);
	if (from < 0 || fstat(from, &facts) < 0) {
		answer(client, "", 0);
		return;
	}
	char *whole = malloc(facts.st_size + 1);
	answer(client, whole, whole && all(from, whole, facts.st_size) ? (size_t)facts.st_size : 0);
	free(whole);
	close(from);
}

static void serve(int client)
{
	static char request[1 << 16];
	size_t got = 0, wanted = 0;
	char fifo[256], id[256] = "/";

	while (got < sizeof request - 1) {
		ssize_t now = read(client, request + got, sizeof request - 1 - got);
		if (now <= 0)
			return;
		request[got += now] = 0;
		char *end = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "content-length:");
		if (!end)
			continue;
		wanted = end + 4 - request + (length && length < end ? strtoul(length + 15, 0, 10) : 0);
		if (got >= wanted)
			break;
	}
	int known = member(request, "ContainerID", id + 1, sizeof id - 1);
	if (!strncmp(request, "POST /LogDriver.Capabilities ", 29)) {
		answer(client, "{\"Cap\":{\"ReadLogs\":true}}", 25);
	} else if (!strncmp(request, "POST /LogDriver.ReadLogs ", 25) && known) {
		send_back(client, id);
	} else {
		if (!strncmp(request, "POST /LogDriver.StartLogging ", 29) && known &&
		    member(request, "File", fifo, sizeof fifo) && fork() == 0)
			keep(fifo, id);
		answer(client, "{}", 2);
	}
}

/* Process 1 of its container: the kernel drops signals that have no handler. */
static void leave(int number)
{
	(void)number;
	_exit(0);
}

int main(void)
{
	struct sockaddr_un place = {.sun_family = AF_UNIX, .sun_path = "/run/docker/plugins/keeper.sock"};
	int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	signal(SIGTERM, leave);
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	unlink(place.sun_path);
	if (bind(server, (struct sockaddr *)&place, sizeof place) < 0 || listen(server, 16) < 0) {
		perror(place.sun_path);
		return 1;
	}
	for (;;) {
		int client = accept4(server, 0, 0, SOCK_CLOEXEC);
		if (client >= 0) {
			serve(client);
			close(client);
		}
	}
}
