/* A volume plugin that does all well but Mount: there it does what its argument says. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void send_all(int client, const char *data, size_t length) {
  while (length) {
    ssize_t sent = write(client, data, length);
    if (sent <= 0) return;
    data += sent, length -= (size_t)sent;
  }
}

static void reply(int client, const char *body, size_t length) {
  char head[128];
  int size = snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", length);
  send_all(client, head, (size_t)size);
  send_all(client, body, length);
}

static void misbehave(int client, const char *mode) {
  if (!strcmp(mode, "rubbish")) {
    reply(client, "\x00\xff no JSON", 11);
  } else if (!strcmp(mode, "big")) {
    size_t length = 10 << 20;
    char *body = malloc(length);
    memset(body, 'x', length);
    memcpy(body, "{\"Mountpoint\":\"", 15);
    reply(client, body, length);
    free(body);
  } else if (!strcmp(mode, "escape")) {
    reply(client, "{\"Mountpoint\":\"/data/../../../../etc\"}", 38);
  } else if (!strcmp(mode, "die")) {
    fprintf(stderr, "dying in Mount\n");
    _exit(9);
  } else if (!strcmp(mode, "hang")) {
    for (;;) pause();
  }
}

int main(int count, char **words) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/docker/plugins/p.sock"};
  int server = socket(AF_UNIX, SOCK_STREAM, 0);
  static char request[65536];
  signal(SIGTERM, _exit); /* the first process of a container has no default */
  unlink(address.sun_path);
  if (count < 2 || bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 64)) return 1;
  for (;;) {
    int client = accept(server, NULL, NULL);
    ssize_t length = read(client, request, sizeof request - 1);
    if (length > 0) {
      request[length] = 0;
      if (!strncmp(request, "POST /VolumeDriver.Mount", 24)) misbehave(client, words[1]);
      else if (!strncmp(request, "POST /VolumeDriver.Get", 22))
        reply(client, "{\"Volume\":{\"Name\":\"v\"}}", 23);
      else reply(client, "{\"Err\":\"\"}", 10);
    }
    close(client);
  }
}
