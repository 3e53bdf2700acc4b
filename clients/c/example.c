/*
 * A program that prints what is published to a channel, and publishes each line of its standard input.
 *
 *     ./example HOST PORT CHANNEL [TOKEN]
 */
#define LHTTP_IMPLEMENTATION
#include "lhttp.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void on_message(void *context, const lhttp_message *message) {
    (void)context;
    printf("%.*s: %.*s\n", (int)message->command.size, message->command.data, (int)message->body.size,
           message->body.data);
}

static void on_answer(void *context, int32_t id, int status, lhttp_text reason) {
    (void)context;
    if (status != 200) fprintf(stderr, "message %ld: status %d, %.*s\n", (long)id, status, (int)reason.size, reason.data);
}

static void on_state(void *context, lhttp_state state, int code, lhttp_text reason) {
    (void)context;
    if (state == LHTTP_READY) fprintf(stderr, "connected\n");
    if (state == LHTTP_WAITING) fprintf(stderr, "lost: %d %.*s\n", code, (int)reason.size, reason.data);
}

static void on_missed(void *context, const char *channel) {
    (void)context;
    fprintf(stderr, "messages of %s are lost\n", channel);
}

static void on_refused(void *context, const char *channel, int status, lhttp_text reason) {
    (void)context;
    fprintf(stderr, "not subscribed to %s: %d %.*s\n", channel, status, (int)reason.size, reason.data);
}

static void on_error(void *context, int status, lhttp_text reason) {
    (void)context;
    fprintf(stderr, "error %d: %.*s\n", status, (int)reason.size, reason.data);
}

/* Read a line without its end, if there is one by now. Returns 1, 0 if there is none, -1 at the end of the input. */
static int read_line(char *line, size_t capacity, size_t *size) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    while (poll(&input, 1, 0) > 0) {
        char character;
        if (read(STDIN_FILENO, &character, 1) != 1) return -1;
        if (character == '\n') return 1;
        if (*size < capacity) line[(*size)++] = character;
    }
    return 0;
}

int main(int argc, char **argv) {
    static char input[4096], output[4096], line[1024];
    static lhttp_subscription subscriptions[4];
    static lhttp_pending pending[8];
    static lhttp_posix socket_state;
    static lhttp_client client;
    lhttp_config config;
    size_t size = 0;
    int waiting = 0; /* whether a whole line could not be sent yet */

    if (argc < 4) {
        fprintf(stderr, "usage: %s HOST PORT CHANNEL [TOKEN]\n", argv[0]);
        return 2;
    }
    memset(&config, 0, sizeof config);
    if (lhttp_posix_init(&socket_state, &config.io, argv[1], argv[2]) != 0) {
        fprintf(stderr, "%s: there is no such host\n", argv[1]);
        return 1;
    }
    config.input = input;
    config.input_size = sizeof input;
    config.output = output;
    config.output_size = sizeof output;
    config.subscriptions = subscriptions;
    config.max_subscriptions = sizeof subscriptions / sizeof *subscriptions;
    config.pending = pending;
    config.max_pending = sizeof pending / sizeof *pending;
    config.token = argc > 4 ? argv[4] : NULL;
    config.seed = (uint32_t)time(NULL) ^ (uint32_t)getpid();
    config.handlers.message = on_message;
    config.handlers.answer = on_answer;
    config.handlers.state = on_state;
    config.handlers.missed = on_missed;
    config.handlers.refused = on_refused;
    config.handlers.error = on_error;
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (lhttp_init(&client, &config) != LHTTP_OK || lhttp_subscribe(&client, argv[3]) != LHTTP_OK) {
        fprintf(stderr, "%s: no channel has this name\n", argv[3]);
        return 2;
    }
    for (;;) {
        if (!waiting) {
            int found = read_line(line, sizeof line, &size);
            if (found < 0) break;
            waiting = found;
        }
        if (waiting) {
            lhttp_publication publication = {NULL, "line", NULL, NULL, 0, 1};
            int32_t result;
            publication.channel = argv[3];
            publication.body = line;
            publication.size = size;
            result = lhttp_publish(&client, &publication);
            if (result != LHTTP_OFFLINE && result != LHTTP_FULL) { /* else later: nothing was sent */
                if (result < 0) fprintf(stderr, "this line cannot be published\n");
                waiting = 0;
                size = 0;
            }
        }
        lhttp_poll(&client, 50);
    }
    lhttp_close(&client, 1);
    return 0;
}
