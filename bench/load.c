/* The load generator: one epoll loop that speaks just enough RFC 6455 to drive a server and to prove what it got back.
 *
 * load HOST PORT MODE CONNECTIONS SUBSCRIBE MESSAGE EXPECT COUNT [OTHER PORT]
 *
 * MODE echo     every connection keeps one MESSAGE in flight
 * MODE fanout   a connection of its own sends MESSAGE, each of the CONNECTIONS then gets COUNT messages; when half of those
 *               are in it is sent again, so that a server never waits and never has two MESSAGEs to read
 * MODE step     the same, but sent again only when all have got theirs: of several servers none gets ahead
 * MODE recover  every connection sends SUBSCRIBE, which says from where on, gets what it missed, COUNT messages, sends
 *               MESSAGE, which ends the subscription, and begins again
 * MODE upgrade  connect, 101, first message, close handshake, on CONNECTIONS sockets side by side
 * MODE idle     connections that stay
 *
 * Rule 1: the first frame of a connection holds "welcome", the answer to SUBSCRIBE (if not empty) holds "subscribed".
 * Rule 2: MESSAGE has `"n":1000000`; an echo must bring the same n back, a delivery the next n of that subscriber.
 * Rule 3: a measured frame holds EXPECT, and all have one length. Anything else ends the program with a reason.
 *
 * Commands come on stdin: `run SECONDS` answers with one line of JSON, `send TEXT` sends TEXT on a connection of its own,
 * end of file ends the program. The connection of its own, which they and a fan-out have, goes to OTHER PORT, if there is
 * one: where a publication is made need not be where the subscribers are. The sockets bind to several 127.0.0.x addresses, so 10,000 and more fit. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FIRST_N 1000000
#define SOURCES 8
#define HANDSHAKES 64          /* open handshakes at a time while connecting: below every server's backlog */
#define STALL_SECONDS 15.0
#define ROOM (1 << 18)

enum state { CLOSED, UPGRADING, GREETED, SUBSCRIBING, OPEN, LEAVING, CLOSING };
enum mode { ECHO, FANOUT, STEP, RECOVER, UPGRADE, IDLE };

struct connection {
    int fd;
    enum state state;
    long next;                 /* the n it must see next */
    unsigned char *tail;       /* bytes of an unfinished frame, rarely any */
    size_t tail_length;
};

static const unsigned char MASK[4] = {0x37, 0xfa, 0x21, 0x3d};
static const char ACCEPT[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="; /* RFC 6455 section 1.3's answer to its example key */

/* What a browser sends, in its order; the compression it offers is one that no server here has on. */
static const char HEAD[] =
    "GET /ws HTTP/1.1\r\nHost: %s:%s\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n"
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n"
    "Upgrade: websocket\r\nOrigin: http://%s:%s\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    "Accept-Language: en-US,en;q=0.9\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

static struct sockaddr_in server, other;
static enum mode mode;
static int connections, count, epoll_fd;
static const char *host, *port, *subscribe, *message, *expect;
static struct connection *all; /* [connections] is the one that triggers and takes `send` */
static int opening, open_now, started;
static bool running, stdin_open = true;
static double deadline, last_progress;
static long operations, in_flight, early; /* early: how many may be in flight when a fan-out goes on */
static size_t frame_length, n_hint;
static unsigned char room[ROOM];

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load generator: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static void write_all(struct connection *c, const void *data, size_t length) {
    if (send(c->fd, data, length, MSG_NOSIGNAL) != (ssize_t)length)
        fail("connection %ld: could not send (%s)", (long)(c - all), strerror(errno));
}

static void send_frame(struct connection *c, int opcode, const void *payload, size_t length) {
    unsigned char frame[8 + 4096];
    size_t at = 0;
    if (length > 4096) fail("a message of %zu bytes is too long", length);
    frame[at++] = (unsigned char)(0x80 | opcode);
    if (length < 126) {
        frame[at++] = (unsigned char)(0x80 | length);
    } else {
        frame[at++] = 0x80 | 126;
        frame[at++] = (unsigned char)(length >> 8);
        frame[at++] = (unsigned char)length;
    }
    memcpy(frame + at, MASK, 4);
    at += 4;
    for (size_t i = 0; i < length; i++) frame[at + i] = ((const unsigned char *)payload)[i] ^ MASK[i & 3];
    write_all(c, frame, at + length);
}

static void send_text(struct connection *c, const char *text) { send_frame(c, 1, text, strlen(text)); }

static void send_numbered(struct connection *c) {
    static char text[4096];
    static size_t length, digits;
    if (!length) {
        const char *n = strstr(message, "\"n\":1000000");
        if (!n || strlen(message) >= sizeof text) fail("the message has no \"n\":1000000");
        length = strlen(message);
        memcpy(text, message, length);
        digits = (size_t)(n - message) + 4;
    }
    long value = c->next;
    for (size_t i = 7; i-- > 0; value /= 10) text[digits + i] = (char)('0' + value % 10);
    send_frame(c, 1, text, length);
}

static void connect_one(struct connection *c) {
    struct sockaddr_in source = {.sin_family = AF_INET};
    char head[1024];
    int yes = 1;
    source.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + (uint32_t)(started++ % SOURCES));
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("no socket: %s", strerror(errno));
    setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    struct sockaddr_in *target = c == &all[connections] ? &other : &server;
    if (bind(c->fd, (struct sockaddr *)&source, sizeof source) || connect(c->fd, (struct sockaddr *)target, sizeof *target))
        fail("cannot connect to %s:%s: %s", host, port, strerror(errno));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
    int length = snprintf(head, sizeof head, HEAD, host, port, host, port);
    c->state = UPGRADING;
    c->next = FIRST_N;
    opening++;
    write_all(c, head, (size_t)length);
}

static void drop(struct connection *c) {
    close(c->fd);
    free(c->tail);
    *c = (struct connection){.fd = -1, .state = CLOSED};
}

/* How many bytes of a 101 and its head there are, 0 while it is unfinished. */
static size_t upgraded(struct connection *c, const unsigned char *data, size_t length) {
    const unsigned char *end = memmem(data, length, "\r\n\r\n", 4);
    if (!end) return 0;
    size_t head = (size_t)(end - data) + 4;
    if (memcmp(data, "HTTP/1.1 101", 12) || !memmem(data, head, ACCEPT, sizeof ACCEPT - 1))
        fail("connection %ld was not upgraded: %.*s", (long)(c - all), (int)(head < 400 ? head : 400), data);
    return head;
}

static long read_n(const unsigned char *data, size_t length) {
    if (n_hint + 4 > length || memcmp(data + n_hint, "\"n\":", 4)) {
        const unsigned char *found = memmem(data, length, "\"n\":", 4);
        if (!found) return -1;
        n_hint = (size_t)(found - data);
    }
    size_t at = n_hint + 4;
    long value = 0;
    if (at < length && data[at] == ' ') at++;
    for (; at < length && data[at] >= '0' && data[at] <= '9'; at++) value = value * 10 + (data[at] - '0');
    return value;
}

static void verify(struct connection *c, const unsigned char *data, size_t length) {
    if (!frame_length) frame_length = length;
    if (!running || length != frame_length || read_n(data, length) != c->next || !memmem(data, length, expect, strlen(expect)))
        fail("connection %ld expected n %ld in %zu bytes, got %zu: %.*s", (long)(c - all), c->next, frame_length, length,
             (int)(length < 400 ? length : 400), data);
    c->next++;
    operations++;
    in_flight--;
}

static void trigger(void) {
    in_flight += (long)connections * count;
    send_text(&all[connections], message);
}

static void recover(struct connection *c) {
    in_flight += count + 1; /* the end of the subscription is answered too */
    c->next = FIRST_N;
    c->state = SUBSCRIBING;
    send_text(c, subscribe);
}

static void ready(struct connection *c) {
    c->state = OPEN;
    opening--;
    open_now++;
}

static void text_frame(struct connection *c, const unsigned char *data, size_t length) {
    switch (c->state) {
    case GREETED:
        if (!memmem(data, length, "welcome", 7)) fail("no welcome: %.*s", (int)length, data);
        if (mode == UPGRADE) {
            send_frame(c, 8, "\x03\xe8", 2);
            c->state = CLOSING;
        } else if (*subscribe && mode != RECOVER && c != &all[connections]) {
            send_text(c, subscribe);
            c->state = SUBSCRIBING;
        } else {
            ready(c);
        }
        break;
    case SUBSCRIBING:
        if (!memmem(data, length, "subscribed", 10)) fail("not subscribed: %.*s", (int)length, data);
        if (mode != RECOVER) {
            ready(c);
        } else if (memmem(data, length, "\"recovered\":true", 16)) {
            c->state = OPEN;
        } else {
            fail("not recovered: %.*s", (int)length, data);
        }
        break;
    case OPEN:
        if (c == &all[connections]) break; /* whatever the server answers to `send` */
        verify(c, data, length);
        if (mode == ECHO && now(CLOCK_MONOTONIC) < deadline) {
            send_numbered(c);
            in_flight++;
        } else if ((mode == FANOUT || mode == STEP) && in_flight == early && now(CLOCK_MONOTONIC) < deadline) {
            trigger();
        } else if (mode == RECOVER && c->next == FIRST_N + count) {
            c->state = LEAVING;
            send_text(c, message);
        }
        break;
    case LEAVING:
        if (!memmem(data, length, "unsubscribed", 12)) fail("more than was missed: %.*s", (int)length, data);
        c->state = OPEN;
        in_flight--;
        if (now(CLOCK_MONOTONIC) < deadline) recover(c);
        break;
    default: fail("a message in state %d", c->state);
    }
}

static void frame(struct connection *c, int first, const unsigned char *data, size_t length) {
    if (first == 0x81) text_frame(c, data, length);
    else if (first == 0x89) send_frame(c, 10, data, length);
    else if (first == 0x88 && c->state == CLOSING) return;
    else fail("connection %ld got a frame 0x%02x of %zu bytes: %.*s", (long)(c - all), first, length,
              length > 2 ? (int)length - 2 : 0, data + 2);
}

static size_t consume(struct connection *c, const unsigned char *data, size_t length) {
    size_t at = 0;
    if (c->state == UPGRADING) {
        if (!(at = upgraded(c, data, length))) return 0;
        c->state = GREETED;
    }
    while (length - at >= 2) {
        size_t head = 2, size = data[at + 1];
        if (size == 126) {
            if (length - at < 4) break;
            head = 4;
            size = (size_t)data[at + 2] << 8 | data[at + 3];
        } else if (size > 126) {
            fail("a frame too long or masked (0x%02zx)", size);
        }
        if (length - at < head + size) break;
        frame(c, data[at], data + at + head, size);
        at += head + size;
    }
    return at;
}

static void keep(struct connection *c, const unsigned char *data, size_t length) {
    if (length) {
        c->tail = realloc(c->tail, length);
        memcpy(c->tail, data, length);
    }
    c->tail_length = length;
}

static void closed(struct connection *c) {
    if (c->state != CLOSING) fail("connection %ld was closed in state %d", (long)(c - all), c->state);
    drop(c);
    opening--;
    operations++;
    if (now(CLOCK_MONOTONIC) < deadline) connect_one(c);
    else in_flight--;
}

static void readable(struct connection *c) {
    size_t have = c->tail_length;
    if (have) memcpy(room, c->tail, have);
    ssize_t got = recv(c->fd, room + have, ROOM - have, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        closed(c);
        return;
    }
    size_t used = consume(c, room, have + (size_t)got);
    keep(c, room + used, have + (size_t)got - used);
}

static void start(double seconds) {
    running = true;
    operations = in_flight = 0;
    deadline = now(CLOCK_MONOTONIC) + seconds;
    if (mode == FANOUT || mode == STEP) trigger();
    for (int i = 0; i < connections && mode == RECOVER; i++) recover(&all[i]);
    for (int i = 0; i < connections && (mode == ECHO || mode == UPGRADE); i++, in_flight++) {
        if (mode == ECHO) send_numbered(&all[i]);
        else connect_one(&all[i]);
    }
}

static void commands(double *began, double *cpu) {
    static char line[4096];
    if (!fgets(line, sizeof line, stdin)) {
        stdin_open = false;
    } else if (!strncmp(line, "run ", 4) && mode != IDLE) {
        *began = now(CLOCK_MONOTONIC);
        *cpu = now(CLOCK_PROCESS_CPUTIME_ID);
        start(atof(line + 4));
    } else if (!strncmp(line, "send ", 5)) {
        line[strcspn(line, "\n")] = 0;
        send_text(&all[connections], line + 5);
    } else {
        fail("unknown command %s", line);
    }
}

static void loop(bool (*done)(void)) {
    struct epoll_event events[512];
    double began = 0, cpu = 0;
    last_progress = now(CLOCK_MONOTONIC);
    while (!done()) {
        int n = epoll_wait(epoll_fd, events, 512, 1000);
        double t = now(CLOCK_MONOTONIC);
        if (n > 0) last_progress = t;
        else if ((running || opening) && t - last_progress > STALL_SECONDS)
            fail("stalled: %ld done, %ld in flight, %d of %d open", operations, in_flight, open_now, connections);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) readable(events[i].data.ptr);
            else commands(&began, &cpu);
        }
        if (running && in_flight == 0) {
            running = false;
            printf("{\"operations\": %ld, \"seconds\": %.6f, \"cpu\": %.6f}\n", operations, now(CLOCK_MONOTONIC) - began,
                   now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
            fflush(stdout);
        }
    }
}

static bool connected(void) {
    while (opening < HANDSHAKES && started <= connections) connect_one(&all[started]);
    return open_now == connections + 1;
}

static bool ended(void) { return !stdin_open && !running; }

static enum mode mode_named(const char *name) {
    static const char *names[] = {"echo", "fanout", "step", "recover", "upgrade", "idle"};
    for (int i = 0; i < 6; i++)
        if (!strcmp(name, names[i])) return (enum mode)i;
    fail("unknown mode %s", name);
}

int main(int argc, char **argv) {
    if (argc < 9 || argc > 10) fail("usage: load HOST PORT MODE CONNECTIONS SUBSCRIBE MESSAGE EXPECT COUNT [OTHER PORT]");
    host = argv[1], port = argv[2], mode = mode_named(argv[3]), connections = atoi(argv[4]);
    subscribe = argv[5], message = argv[6], expect = argv[7], count = atoi(argv[8]);
    early = mode == FANOUT ? (long)connections * count / 2 : 0;
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    inet_pton(AF_INET, host, &server.sin_addr);
    other = server;
    if (argc == 10) other.sin_port = htons((uint16_t)atoi(argv[9]));
    all = calloc((size_t)connections + 1, sizeof *all);
    setvbuf(stdin, NULL, _IONBF, 0); /* a buffered second line would not wake epoll */
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (mode != UPGRADE) loop(connected);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event);
    printf("{\"open\": %d}\n", open_now);
    fflush(stdout);
    loop(ended);
    return 0;
}
