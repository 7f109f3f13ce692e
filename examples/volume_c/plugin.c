/* A volume plugin in C, without any library: each volume is a folder below /data, the plugin's propagated mount.
 *
 * Speaks Docker's VolumeDriver 1.0: HTTP POST /VolumeDriver.Method on a unix socket, JSON both ways. One request a connection.
 * Build it static (see Makefile), so that the root file system holds nothing else.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define DATA "/data"
#define SOCKET "/run/docker/plugins/volume.sock"
#define REQUEST_MAX 65536

static char reply[REQUEST_MAX];
static int status;

static void say(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(reply, sizeof reply, format, arguments);
  va_end(arguments);
}

static void refuse(const char *what, const char *name) {
  status = 500;
  say("{\"Err\":\"%s: %s\"}", what, name);
}

/* The string value of a key of the request's JSON. Names with escapes are refused: they are no names of volumes. */
static int value_of(const char *json, const char *key, char *value, size_t size) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\"", key);
  const char *found = strstr(json, quoted);
  if (!found) return 0;
  found += strlen(quoted);
  while (*found == ' ' || *found == ':') found++;
  if (*found++ != '"') return 0;
  size_t length = strcspn(found, "\"\\");
  if (found[length] != '"' || length == 0 || length >= size) return 0;
  memcpy(value, found, length);
  value[length] = 0;
  return 1;
}

static int valid(const char *name) {
  return name[0] != '.' && strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-") == strlen(name);
}

static int drop(const char *path, const struct stat *facts, int kind, struct FTW *place) {
  (void)facts, (void)kind, (void)place;
  return remove(path);
}

static void list(void) {
  DIR *folder = opendir(DATA);
  size_t used = (size_t)snprintf(reply, sizeof reply, "{\"Volumes\":[");
  const char *comma = "";
  for (struct dirent *entry; folder && (entry = readdir(folder));) {
    if (entry->d_name[0] == '.' || used > sizeof reply - 512) continue;
    used += (size_t)snprintf(reply + used, sizeof reply - used, "%s{\"Name\":\"%s\",\"Mountpoint\":\"" DATA "/%s\"}", comma,
                             entry->d_name, entry->d_name);
    comma = ",";
  }
  if (folder) closedir(folder);
  snprintf(reply + used, sizeof reply - used, "],\"Err\":\"\"}");
}

static void answer(const char *method, const char *body) {
  char name[200], path[256];
  struct stat facts;
  status = 200;
  say("{\"Err\":\"\"}");
  if (!strcmp(method, "VolumeDriver.Capabilities")) {
    say("{\"Capabilities\":{\"Scope\":\"local\"}}");
    return;
  }
  if (!strcmp(method, "VolumeDriver.List")) {
    list();
    return;
  }
  if (strncmp(method, "VolumeDriver.", 13)) {
    status = 404;
    say("404 page not found");
    return;
  }
  if (!value_of(body, "Name", name, sizeof name) || !valid(name)) {
    refuse("not a name of a volume", "want letters, digits, '_', '.', '-'");
    return;
  }
  method += 13;
  snprintf(path, sizeof path, DATA "/%s", name);
  int exists = stat(path, &facts) == 0;
  if (!strcmp(method, "Create")) {
    if (!exists && mkdir(path, 0755)) refuse(strerror(errno), name);
  } else if (!strcmp(method, "Remove")) {
    if (exists && nftw(path, drop, 16, FTW_DEPTH | FTW_PHYS)) refuse(strerror(errno), name);
  } else if (!exists) {
    refuse("no such volume", name);
  } else if (!strcmp(method, "Get")) {
    say("{\"Volume\":{\"Name\":\"%s\",\"Mountpoint\":\"%s\",\"Status\":{\"written in\":\"C\"}},\"Err\":\"\"}", name, path);
  } else if (!strcmp(method, "Mount") || !strcmp(method, "Path")) {
    say("{\"Mountpoint\":\"%s\",\"Err\":\"\"}", path);
  } else if (strcmp(method, "Unmount")) {
    status = 404;
    say("404 page not found");
  }
}

static void serve(int client) {
  static char request[REQUEST_MAX];
  size_t have = 0, need = 0;
  char *body = NULL;
  while (have < sizeof request - 1) {
    ssize_t got = read(client, request + have, sizeof request - 1 - have);
    if (got <= 0) return;
    have += (size_t)got;
    request[have] = 0;
    if (!body && (body = strstr(request, "\r\n\r\n"))) {
      body += 4;
      const char *length = strcasestr(request, "content-length:");
      need = length && length < body ? (size_t)strtoul(length + 15, NULL, 10) : 0;
    }
    if (body && have - (size_t)(body - request) >= need) break;
  }
  char method[64] = "";
  if (!body || sscanf(request, "POST /%63s HTTP", method) != 1) return;
  answer(method, body);
  dprintf(client, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
          status, status == 200 ? "OK" : "Error", strlen(reply), reply);
}

static void stop(int number) {
  (void)number;
  unlink(SOCKET);
  _exit(0);
}

int main(void) {
  struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SOCKET};
  int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  signal(SIGTERM, stop);
  signal(SIGPIPE, SIG_IGN);
  unlink(SOCKET);
  if (server < 0 || bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 64)) {
    perror(SOCKET);
    return 1;
  }
  fprintf(stderr, "level=info msg=\"volumes are folders below " DATA "\"\n");
  for (;;) {
    int client = accept(server, NULL, NULL);
    if (client < 0) continue;
    serve(client);
    close(client);
  }
}
