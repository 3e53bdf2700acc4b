/*
 * A client that does what lines of its standard input say, and prints what happens. For tests/integration/test_c_client.py.
 *
 *     driver HOST PORT [NAME=VALUE]...
 */
#define LHTTP_IMPLEMENTATION
#include "lhttp.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static lhttp_client client;

static void print(const char *what, const char *more, long number, lhttp_text text) {
    printf("%s %s %ld %.*s\n", what, more, number, (int)text.size, text.data);
    fflush(stdout);
}

static void on_message(void *context, const lhttp_message *message) {
    char command[65];
    (void)context;
    lhttp_copy(command, sizeof command, message->command);
    print("message", command, (long)message->body.size, lhttp_slice(message->body.data, message->body.size > 80 ? 80 : message->body.size));
}

static void on_answer(void *context, int32_t id, int status, lhttp_text reason) {
    char number[16];
    (void)context;
    lhttp_digits(number, (uint32_t)id);
    print("answer", number, status, reason);
}

static void on_subscribed(void *context, const char *channel, int recovered) {
    (void)context;
    print("subscribed", channel, recovered, lhttp_text_of(""));
}

static void on_missed(void *context, const char *channel) {
    (void)context;
    print("missed", channel, 0, lhttp_text_of(""));
}

static void on_refused(void *context, const char *channel, int status, lhttp_text reason) {
    (void)context;
    print("refused", channel, status, reason);
}

static void on_error(void *context, int status, lhttp_text reason) {
    (void)context;
    print("error", "-", status, reason);
}

static void on_state(void *context, lhttp_state state, int code, lhttp_text reason) {
    static const char *const names[] = {"waiting", "login", "ready"};
    (void)context;
    print("state", names[state], code, reason);
}

static int read_line(char *line, size_t capacity, size_t *size) {
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    while (poll(&input, 1, 0) > 0) {
        char character;
        if (read(STDIN_FILENO, &character, 1) != 1) return -1;
        if (character == '\n') {
            line[*size] = '\0';
            *size = 0;
            return 1;
        }
        if (*size < capacity - 1) line[(*size)++] = character;
    }
    return 0;
}

static void obey(char *line) {
    char *word = strtok(line, " "), *channel = strtok(NULL, " "), *body = strtok(NULL, "");
    long result = 0;
    if (word == NULL) return;
    if (strcmp(word, "subscribe") == 0) {
        result = lhttp_subscribe(&client, channel);
    } else if (strcmp(word, "unsubscribe") == 0) {
        result = lhttp_unsubscribe(&client, channel);
    } else if (strcmp(word, "publish") == 0) {
        lhttp_publication publication;
        memset(&publication, 0, sizeof publication);
        publication.channel = channel;
        publication.body = body;
        publication.size = body == NULL ? 0 : strlen(body);
        publication.answer = 1;
        result = lhttp_publish(&client, &publication);
    } else if (strcmp(word, "ping") == 0) {
        result = lhttp_ping(&client);
    } else if (strcmp(word, "say") == 0) {
        char message[512];
        lhttp_composer composer;
        lhttp_begin(&composer, message, sizeof message, channel);
        result = lhttp_finish(&composer, body, body == NULL ? 0 : strlen(body));
        if (result == LHTTP_OK) result = lhttp_send(&client, composer.data, composer.size);
    } else if (strcmp(word, "close") == 0) {
        lhttp_close(&client, 0);
    }
    print("result", word, result, lhttp_text_of(""));
}

int main(int argc, char **argv) {
    static char line[2048];
    static lhttp_posix socket_state;
    lhttp_config config;
    size_t size = 0, input_size = 1024, output_size = 1024;
    int i, found = 0;
    char *input, *output;
    lhttp_subscription *subscriptions = malloc(3 * sizeof *subscriptions);
    lhttp_pending *pending = malloc(4 * sizeof *pending);
    if (argc < 3 || subscriptions == NULL || pending == NULL) return 2;
    memset(&config, 0, sizeof config);
    if (lhttp_posix_init(&socket_state, &config.io, argv[1], argv[2]) != 0) return 1;
    config.first_wait = 50;
    config.last_wait = 400;
    for (i = 3; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (value == NULL) return 2;
        *value++ = '\0';
        if (strcmp(argv[i], "token") == 0) config.token = value;
        if (strcmp(argv[i], "user") == 0) config.user = value;
        if (strcmp(argv[i], "password") == 0) config.password = value;
        if (strcmp(argv[i], "silence") == 0) config.silence = (uint32_t)atol(value);
        if (strcmp(argv[i], "patience") == 0) config.patience = (uint32_t)atol(value);
        if (strcmp(argv[i], "last") == 0) config.last_wait = (uint32_t)atol(value);
        if (strcmp(argv[i], "input") == 0) input_size = (size_t)atol(value);
        if (strcmp(argv[i], "output") == 0) output_size = (size_t)atol(value);
    }
    /* Not static, so that a sanitizer sees a step beyond them. */
    config.input = input = malloc(input_size);
    config.output = output = malloc(output_size);
    if (input == NULL || output == NULL) return 3;
    config.input_size = input_size;
    config.output_size = output_size;
    config.subscriptions = subscriptions;
    config.max_subscriptions = 3;
    config.pending = pending;
    config.max_pending = 4;
    config.seed = (uint32_t)getpid();
    config.handlers.message = on_message;
    config.handlers.answer = on_answer;
    config.handlers.subscribed = on_subscribed;
    config.handlers.missed = on_missed;
    config.handlers.refused = on_refused;
    config.handlers.error = on_error;
    config.handlers.state = on_state;
    if (lhttp_init(&client, &config) != LHTTP_OK) return 4;
    while (found >= 0) {
        while ((found = read_line(line, sizeof line, &size)) > 0) obey(line);
        lhttp_poll(&client, 20);
    }
    lhttp_close(&client, 1);
    free(input);
    free(output);
    free(subscriptions);
    free(pending);
    return 0;
}
