/* A managed plugin for tests, static so that its rootfs holds nothing else. It listens on /run/docker/plugins/p.sock,
 * writes the first line of every request to stdout, and answers {"Allow": true, "Scope": "local"} (which is good for authz and for a
 * network that needs nothing), or a denial when the request holds "denyme".
 * At MetricsCollector.StartMetrics it writes what it finds on /run/docker/metrics.sock. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char request[1 << 20], page[1 << 20];

static struct sockaddr_un at(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    return address;
}

static void end(int number) { _exit(number == SIGTERM ? 0 : 1); }

static void read_metrics(void) {
    struct sockaddr_un address = at("/run/docker/metrics.sock");
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (void *)&address, sizeof address)) {
        printf("metrics: cannot connect\n");
    } else {
        const char *get = "GET /metrics HTTP/1.0\r\nHost: x\r\n\r\n";
        size_t have = 0;
        ssize_t got;
        if (write(fd, get, strlen(get)) < 0) perror("write");
        while ((got = read(fd, page + have, sizeof page - 1 - have)) > 0) have += got;
        page[have] = 0;
        for (char *line = strtok(page, "\n"); line; line = strtok(NULL, "\n"))
            if (!strncmp(line, "engine_daemon_engine_cpus_cpus ", 31)) printf("metrics: %s\n", line);
    }
    close(fd);
    int touched = unlink("/run/docker/metrics.sock");
    printf("metrics: the socket %s\n", touched ? "cannot be removed" : "was removed");
}

int main(void) {
    struct sockaddr_un address = at("/run/docker/plugins/p.sock");
    unlink(address.sun_path);
    int listening = socket(AF_UNIX, SOCK_STREAM, 0);
    signal(SIGTERM, end);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (bind(listening, (void *)&address, sizeof address) || listen(listening, 64)) return 1;
    for (;;) {
        int fd = accept(listening, NULL, NULL);
        size_t have = 0;
        ssize_t got;
        char *end = NULL;
        request[0] = 0;
        while (have < sizeof request - 1 && (got = read(fd, request + have, sizeof request - 1 - have)) > 0) {
            request[have += got] = 0;
            if (!(end = strstr(request, "\r\n\r\n"))) continue;
            char *length = strcasestr(request, "\r\ncontent-length:");
            if (have >= (size_t)(end + 4 - request) + (length ? strtoul(length + 17, NULL, 10) : 0)) break;
        }
        if (end) {
            int allow = !strstr(request, "denyme");
            const char *body = allow ? "{\"Allow\": true, \"Scope\": \"local\"}" : "{\"Allow\": false, \"Msg\": \"the managed plugin objects\"}";
            dprintf(fd, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", strlen(body), body);
            printf("%.*s\n", (int)strcspn(request, "\r"), request);
            if (strstr(request, "StartMetrics")) read_metrics();
        }
        close(fd);
    }
}
