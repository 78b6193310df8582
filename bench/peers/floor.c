/* The floor: what the kernel alone costs. An epoll server that answers one known handshake key, echoes the bytes it got
 * and publishes with a plain loop of send(). No checks, no limits, no fragments: nothing a real server could leave out. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 65536

/* RFC 6455 section 1.3: the key of its example, which is the one the load generator sends, has this answer. */
static const char UPGRADED[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char WELCOME[] = "{\"type\":\"welcome\",\"payload\":{\"protocol\":1,\"connectionId\":\"0123456789abcdef\","
                              "\"message\":\"Connected\",\"timestamp\":1700000000000}}";
static const char SUBSCRIBED[] = "{\"type\":\"subscribed\",\"payload\":{\"channel\":\"news\"}}";

static unsigned char upgraded[MOST];
static int subscribers[MOST], subscriber_count;
static long n = 1000000;
static unsigned char in[1 << 16], out[1 << 16];

static size_t put_header(unsigned char *at, size_t length) {
    at[0] = 0x81;
    if (length < 126) {
        at[1] = (unsigned char)length;
        return 2;
    }
    at[1] = 126;
    at[2] = (unsigned char)(length >> 8);
    at[3] = (unsigned char)length;
    return 4;
}

static void send_text(int fd, const void *text, size_t length) {
    size_t head = put_header(out, length);
    memcpy(out + head, text, length);
    if (send(fd, out, head + length, MSG_NOSIGNAL) < 0) perror("send");
}

static void publish(long count) {
    char text[256];
    while (count-- > 0) {
        int length = snprintf(text, sizeof text, "{\"type\":\"message\",\"payload\":{\"channel\":\"news\",\"event\":\"tick\","
                              "\"data\":{\"n\":%ld,\"text\":\"twenty bytes of text\"}},\"timestamp\":1700000000000}", n++);
        size_t head = put_header(out, (size_t)length);
        memcpy(out + head, text, (size_t)length);
        for (int i = 0; i < subscriber_count; i++)
            if (send(subscribers[i], out, head + (size_t)length, MSG_NOSIGNAL) < 0) perror("send");
    }
}

static void text_frame(int fd, const char *text, size_t length) {
    const char *count;
    if (memmem(text, length, "\"subscribe\"", 11)) {
        subscribers[subscriber_count++] = fd;
        send_text(fd, SUBSCRIBED, sizeof SUBSCRIBED - 1);
    } else if (memmem(text, length, "\"burst\"", 7)) {
        if ((count = memmem(text, length, "\"count\":", 8))) publish(atol(count + 8));
    } else if (memmem(text, length, "\"echo\"", 6)) {
        send_text(fd, text, length);
    }
}

static void frames(int fd, unsigned char *data, size_t length) {
    size_t at = 0;
    while (length - at >= 6) {
        size_t size = data[at + 1] & 0x7f, head = 6;
        if (size == 126) {
            size = (size_t)data[at + 2] << 8 | data[at + 3];
            head = 8;
        }
        unsigned char *mask = data + at + head - 4, *payload = data + at + head;
        for (size_t i = 0; i < size; i++) payload[i] ^= mask[i & 3];
        if ((data[at] & 15) == 1) text_frame(fd, (const char *)payload, size);
        at += head + size;
    }
}

static void readable(int fd) {
    ssize_t got = recv(fd, in, sizeof in - 1, 0);
    if (got <= 0) {
        upgraded[fd] = 0;
        close(fd);
    } else if (upgraded[fd]) {
        frames(fd, in, (size_t)got);
    } else {
        upgraded[fd] = 1;
        if (send(fd, UPGRADED, sizeof UPGRADED - 1, MSG_NOSIGNAL) < 0) perror("send");
        send_text(fd, WELCOME, sizeof WELCOME - 1);
    }
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "9001"))};
    struct epoll_event events[512], event = {.events = EPOLLIN};
    struct rlimit files;
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0), loop = epoll_create1(0);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < MOST ? files.rlim_max : MOST;
    setrlimit(RLIMIT_NOFILE, &files);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 2048)) {
        perror("listen");
        return 1;
    }
    event.data.fd = listener;
    epoll_ctl(loop, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(loop, events, 512, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd != listener) {
                readable(events[i].data.fd);
                continue;
            }
            event.data.fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            setsockopt(event.data.fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            epoll_ctl(loop, EPOLL_CTL_ADD, event.data.fd, &event);
        }
    }
}
