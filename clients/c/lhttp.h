/*
 * lhttp.h - a client for LHTTP on a plain stream (twistd lhttp --tcp), in one file.
 *
 * C99, and POSIX sockets unless LHTTP_NO_POSIX is defined. It allocates nothing: all memory is the caller's. In exactly
 * one source file, before any other header:
 *
 *     #define LHTTP_IMPLEMENTATION
 *     #include "lhttp.h"
 *
 * One thread uses a client. Call lhttp_poll() again and again: it connects, reads, writes, calls your functions, and comes
 * back within the time that you give it. README.md has the whole story, example.c a program.
 *
 * This file belongs to lhttp-tx and has its license (MIT).
 */
#ifndef LHTTP_H
#define LHTTP_H

#if defined(LHTTP_IMPLEMENTATION) && !defined(LHTTP_NO_POSIX) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The longest name of a channel, in bytes, with a zero at its end. The server takes 255. Define it to change it. */
#ifndef LHTTP_CHANNEL_SIZE
#define LHTTP_CHANNEL_SIZE 64
#endif

#define LHTTP_POSITION_SIZE 56 /* bytes of a position: an epoch of 32, a dash, 19 digits, and a zero */
#define LHTTP_REASON_SIZE 128  /* bytes of the reason of an end */

/* What functions return beside LHTTP_OK. All errors are negative. */
enum {
    LHTTP_OK = 0,
    LHTTP_INVALID = -1,  /* an argument is malformed, or the function may not be called now */
    LHTTP_FULL = -2,     /* there is no room in a buffer or a table; try again later */
    LHTTP_OFFLINE = -3,  /* there is no connection: nothing was sent */
    LHTTP_MALFORMED = -4 /* the bytes are no LHTTP message */
};

/* Bytes that belong to somebody else, without a zero at their end. */
typedef struct lhttp_text {
    const char *data;
    size_t size;
} lhttp_text;

/* A message. It points into the bytes that were parsed. */
typedef struct lhttp_message {
    lhttp_text command;
    lhttp_text headers; /* the header lines, each with its CRLF; see lhttp_next_header() */
    lhttp_text body;
} lhttp_message;

/* Messages without a client */

/* Parse one message. Returns LHTTP_OK or LHTTP_MALFORMED. */
int lhttp_parse(const void *data, size_t size, lhttp_message *message);

/* Take the header at *position, which is 0 at first. Returns 1, or 0 if there are no more. */
int lhttp_next_header(const lhttp_message *message, size_t *position, lhttp_text *name, lhttp_text *value);

/* Find a header by its name, whatever its case; if it is repeated, the last. Returns 1, or 0 if there is none. */
int lhttp_header(const lhttp_message *message, const char *name, lhttp_text *value);

/* Whether *text* is *string*. */
int lhttp_is(lhttp_text text, const char *string);

/* Composes a message in a buffer of the caller. */
typedef struct lhttp_composer {
    char *data;
    size_t capacity;
    size_t size;
    int error;
} lhttp_composer;

/* Begin a message in *buffer*. Errors are kept until lhttp_finish(). */
void lhttp_begin(lhttp_composer *composer, void *buffer, size_t capacity, const char *command);

/* Add a header. *value* is UTF-8 without control characters, and without blanks around it. */
void lhttp_add(lhttp_composer *composer, const char *name, const char *value);

/* End the message with its body. Returns LHTTP_OK, LHTTP_INVALID or LHTTP_FULL; composer->size is its size. */
int lhttp_finish(lhttp_composer *composer, const void *body, size_t size);

/* The connection below a client: a TCP socket, TLS, a UART. No function but `open` and `wait` may block. */
typedef struct lhttp_io {
    void *context; /* passed to each function */
    /* Connect. Returns 0, or -1 if that fails. It may block, for a time that you choose. */
    int (*open)(void *context);
    /* Read at most *size* bytes. Returns how many, 0 if there are none now, -1 if the stream has ended. */
    long (*read)(void *context, void *buffer, size_t size);
    /* Write some of *size* bytes. Returns how many, 0 if it takes none now, -1 if the stream has ended. */
    long (*write)(void *context, const void *data, size_t size);
    /* Wait until there is something to read, or, if *writing*, until something can be written, or for *milliseconds*.
       It is also called while nothing is open, just to wait. It may come back early. */
    void (*wait)(void *context, int writing, int milliseconds);
    /* Close the connection. Called once after each `open` that has returned 0. */
    void (*close)(void *context);
    /* The time in milliseconds since any moment. It may wrap around. */
    uint32_t (*now)(void *context);
} lhttp_io;

typedef enum lhttp_state {
    LHTTP_WAITING,    /* there is no connection; the next attempt is due later */
    LHTTP_LOGGING_IN, /* the server has not answered the login yet */
    LHTTP_READY       /* messages can be sent */
} lhttp_state;

/* A channel that the client is subscribed to, also over reconnects. Make an array of them; leave the fields alone. */
typedef struct lhttp_subscription {
    char channel[LHTTP_CHANNEL_SIZE];
    char position[LHTTP_POSITION_SIZE]; /* of the last message, in a channel with history */
    uint32_t serial;
    uint32_t retry_at;
    unsigned char state;
} lhttp_subscription;

/* A message that waits for its answer. Make an array of them; leave the fields alone. */
typedef struct lhttp_pending {
    int32_t id;
} lhttp_pending;

/* What happens. Each may be NULL. They may call all functions but lhttp_poll() and lhttp_init(). What they are passed is
   valid until they return. */
typedef struct lhttp_handlers {
    void *context; /* passed to each function */
    /* A message has come: a publication, or the reply of a processor. */
    void (*message)(void *context, const lhttp_message *message);
    /* An answer to lhttp_publish() or lhttp_ping(). *status* is 200, or that of the error, or 0 if the connection was lost
       before the answer: the server may have got the message or not. *reason* says why. */
    void (*answer)(void *context, int32_t id, int status, lhttp_text reason);
    /* The client is subscribed. *recovered*: everything since the last connection has come, or comes before this. */
    void (*subscribed)(void *context, const char *channel, int recovered);
    /* Messages of this channel are lost for good. Load the state of your program anew. */
    void (*missed)(void *context, const char *channel);
    /* A subscription was refused, or taken back. It is forgotten if the status is below 500, or else tried again. */
    void (*refused)(void *context, const char *channel, int status, lhttp_text reason);
    /* The server has sent an error that answers nothing, or has sent too large a message (status 413), which was left
       out; or it has refused the login. */
    void (*error)(void *context, int status, lhttp_text reason);
    /* The state has changed. At an end, *code* is a close code of the protocol, or 1006 without one. */
    void (*state)(void *context, lhttp_state state, int code, lhttp_text reason);
} lhttp_handlers;

/* What a client is made of. Everything that it points to must stay. Zeros mean the defaults. */
typedef struct lhttp_config {
    lhttp_io io;
    lhttp_handlers handlers;
    void *input; /* takes the largest message that can be received, and 16 bytes more */
    size_t input_size;
    void *output; /* takes what was sent and has not left; login and subscriptions need it too */
    size_t output_size;
    lhttp_subscription *subscriptions;
    size_t max_subscriptions;
    lhttp_pending *pending; /* messages whose answers are awaited at one time */
    size_t max_pending;
    const char *token; /* log in with a token, or with user and password; NULL: without */
    const char *user;
    const char *password;
    uint32_t seed;       /* random, another one in each device: so they do not all come again at the same moment */
    uint32_t first_wait; /* milliseconds before the second attempt to connect; it doubles each time (1,000) */
    uint32_t last_wait;  /* the longest wait, in milliseconds (60,000) */
    uint32_t silence;    /* milliseconds without a byte after which the server is asked whether it is there (45,000) */
    uint32_t patience;   /* milliseconds in which it must answer that, or a login (10,000) */
} lhttp_config;

/* A client. Leave the fields alone. */
typedef struct lhttp_client {
    lhttp_config config;
    lhttp_state state;
    int open;
    int inside;
    int stopped;
    int asking;
    int code;
    char reason[LHTTP_REASON_SIZE];
    size_t in_size;
    size_t skip;
    size_t out_begin;
    size_t out_end;
    uint32_t due;
    uint32_t backoff;
    uint32_t heard_at;
    uint32_t asked_at;
    uint32_t random;
    uint32_t serial;
    int32_t last_id;
} lhttp_client;

/* What to publish. */
typedef struct lhttp_publication {
    const char *channel;    /* or several, with one blank between them */
    const char *command;    /* NULL: "publish" */
    const char *message_id; /* NULL: none. With one, a message that is sent twice is published once */
    const void *body;
    size_t size;
    int answer; /* whether to ask for an answer */
} lhttp_publication;

/* Make a client. Returns LHTTP_OK or LHTTP_INVALID. Nothing is connected before lhttp_poll(). */
int lhttp_init(lhttp_client *client, const lhttp_config *config);

/* Do what is to be done, and wait for at most *milliseconds* for more. Returns LHTTP_OK, or LHTTP_INVALID if a handler
   calls it. */
int lhttp_poll(lhttp_client *client, int milliseconds);

/* Subscribe now, or as soon as there is a connection, and after each reconnect. Subscribing twice does nothing. Returns
   LHTTP_OK, LHTTP_INVALID or LHTTP_FULL. */
int lhttp_subscribe(lhttp_client *client, const char *channel);

/* Unsubscribe. Returns LHTTP_OK, or LHTTP_INVALID if the client is not subscribed. */
int lhttp_unsubscribe(lhttp_client *client, const char *channel);

/* Publish. Returns the number of the answer that will come, 0 if none was asked for, or an error. */
int32_t lhttp_publish(lhttp_client *client, const lhttp_publication *publication);

/* Ask the server whether it is there. Returns the number of the answer, or an error. */
int32_t lhttp_ping(lhttp_client *client);

/* Send any message, for example to a processor. Returns LHTTP_OK or an error. */
int lhttp_send(lhttp_client *client, const void *message, size_t size);

/* Close the connection. The next lhttp_poll() connects again, unless *forever*. */
void lhttp_close(lhttp_client *client, int forever);

#ifndef LHTTP_NO_POSIX

#include <sys/types.h>
#include <sys/socket.h>

/* A TCP socket. */
typedef struct lhttp_posix {
    struct sockaddr_storage address;
    socklen_t address_size;
    int descriptor;
    int timeout; /* milliseconds that a connection may take to open */
} lhttp_posix;

/* Look up an address once (libc allocates memory for that), and fill in *io*. Returns 0, or -1 if it is not found. */
int lhttp_posix_init(lhttp_posix *posix, lhttp_io *io, const char *host, const char *port);

#endif

#ifdef __cplusplus
}
#endif

#endif /* LHTTP_H */

#ifdef LHTTP_IMPLEMENTATION
#ifndef LHTTP_IMPLEMENTED
#define LHTTP_IMPLEMENTED

#include <string.h>

#define LHTTP_START "LHTTP/1.0 "
#define LHTTP_START_SIZE 10u
#define LHTTP_MAX_COMMAND 64u
#define LHTTP_LENGTH_SIZE 11u /* bytes of a length line: ten digits and a line feed */
#define LHTTP_RETRY 5000u     /* milliseconds until a subscription is tried again that the server could not make */

enum { LHTTP_FREE = 0, LHTTP_WANTED, LHTTP_ASKED, LHTTP_SUBSCRIBED, LHTTP_RETRYING };

/* Texts */

static lhttp_text lhttp_text_of(const char *string) {
    lhttp_text text;
    text.data = string;
    text.size = string == NULL ? 0 : strlen(string);
    return text;
}

static lhttp_text lhttp_slice(const char *data, size_t size) {
    lhttp_text text;
    text.data = data;
    text.size = size;
    return text;
}

int lhttp_is(lhttp_text text, const char *string) {
    size_t size = strlen(string);
    return text.size == size && (size == 0 || memcmp(text.data, string, size) == 0);
}

static char lhttp_lower(char character) {
    return character >= 'A' && character <= 'Z' ? (char)(character - 'A' + 'a') : character;
}

static int lhttp_is_named(lhttp_text text, const char *name) {
    size_t i;
    for (i = 0; i < text.size; i++)
        if (name[i] == '\0' || lhttp_lower(text.data[i]) != lhttp_lower(name[i])) return 0;
    return name[i] == '\0';
}

/* Whether bytes are UTF-8 (RFC 3629) without control characters other than a tab. */
static int lhttp_is_value(const char *data, size_t size) {
    const unsigned char *bytes = (const unsigned char *)data;
    size_t i = 0;
    while (i < size) {
        unsigned first = bytes[i++];
        unsigned more, least, code;
        if (first < 0x80) {
            if ((first < 0x20 && first != '\t') || first == 0x7f) return 0;
            continue;
        }
        if (first >= 0xc2 && first <= 0xdf) {
            more = 1, least = 0x80, code = first & 0x1fu;
        } else if (first >= 0xe0 && first <= 0xef) {
            more = 2, least = 0x800, code = first & 0x0fu;
        } else if (first >= 0xf0 && first <= 0xf4) {
            more = 3, least = 0x10000, code = first & 0x07u;
        } else {
            return 0;
        }
        if (size - i < more) return 0;
        for (; more > 0; more--) {
            if ((bytes[i] & 0xc0u) != 0x80u) return 0;
            code = code << 6 | (bytes[i++] & 0x3fu);
        }
        if (code < least || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return 0;
    }
    return 1;
}

/* Whether bytes are visible ASCII, without *except*. */
static int lhttp_is_visible(const char *data, size_t size, char except) {
    size_t i;
    for (i = 0; i < size; i++)
        if (data[i] < 0x21 || data[i] > 0x7e || data[i] == except) return 0;
    return size > 0;
}

/* Read a decimal number. Returns 0 if *text* is none, or has more than nine digits. */
static int lhttp_number(lhttp_text text, uint32_t *number) {
    size_t i;
    uint32_t found = 0;
    if (text.size == 0 || text.size > 9) return 0;
    for (i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') return 0;
        found = found * 10 + (uint32_t)(text.data[i] - '0');
    }
    *number = found;
    return 1;
}

/* Write a number in decimal digits, and a zero. *digits* has room for eleven bytes. Returns how many digits. */
static size_t lhttp_digits(char *digits, uint32_t number) {
    char reversed[10];
    size_t count = 0, i;
    do {
        reversed[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    for (i = 0; i < count; i++) digits[i] = reversed[count - 1 - i];
    digits[count] = '\0';
    return count;
}

/* Copy a text into a string of *capacity* bytes, and cut it if it is too long. */
static void lhttp_copy(char *string, size_t capacity, lhttp_text text) {
    size_t size = text.size < capacity ? text.size : capacity - 1;
    if (size > 0) memcpy(string, text.data, size);
    string[size] = '\0';
}

/* Take the next word of a list with blanks between its words. Returns 0 if there is none. */
static int lhttp_next_word(lhttp_text *list, lhttp_text *word) {
    while (list->size > 0 && (*list->data == ' ' || *list->data == '\t')) list->data++, list->size--;
    word->data = list->data;
    word->size = 0;
    while (list->size > 0 && *list->data != ' ' && *list->data != '\t') list->data++, list->size--, word->size++;
    return word->size > 0;
}

/* Whether a list names a channel; its words may have "=POSITION" behind the name, which *position* then gets. */
static int lhttp_lists(lhttp_text list, const char *channel, lhttp_text *position) {
    lhttp_text word;
    while (lhttp_next_word(&list, &word)) {
        size_t name = word.size;
        if (position != NULL) {
            while (name > 0 && word.data[name - 1] != '=') name--;
            if (name == 0) continue;
            *position = lhttp_slice(word.data + name, word.size - name);
            name--;
        }
        if (lhttp_is(lhttp_slice(word.data, name), channel)) return 1;
    }
    return 0;
}

/* Messages */

int lhttp_parse(const void *data, size_t size, lhttp_message *message) {
    const char *bytes = (const char *)data;
    size_t position = 0;
    int first = 1;
    if (size == 0) return LHTTP_MALFORMED;
    for (;;) {
        size_t end = position, colon;
        while (end < size && bytes[end] != '\r' && bytes[end] != '\n') end++;
        if (size - end < 2 || bytes[end] != '\r' || bytes[end + 1] != '\n') return LHTTP_MALFORMED;
        if (first) {
            if (end < LHTTP_START_SIZE || memcmp(bytes, LHTTP_START, LHTTP_START_SIZE) != 0) return LHTTP_MALFORMED;
            message->command = lhttp_slice(bytes + LHTTP_START_SIZE, end - LHTTP_START_SIZE);
            if (message->command.size > LHTTP_MAX_COMMAND) return LHTTP_MALFORMED;
            if (!lhttp_is_visible(message->command.data, message->command.size, '\0')) return LHTTP_MALFORMED;
            message->headers = lhttp_slice(bytes + end + 2, 0);
            first = 0;
        } else if (end == position) { /* the blank line */
            message->headers.size = (size_t)(bytes + position - message->headers.data);
            message->body = lhttp_slice(bytes + end + 2, size - end - 2);
            return LHTTP_OK;
        } else {
            for (colon = position; colon < end && bytes[colon] != ':';) colon++;
            if (colon == end || !lhttp_is_visible(bytes + position, colon - position, ':')) return LHTTP_MALFORMED;
            if (!lhttp_is_value(bytes + colon + 1, end - colon - 1)) return LHTTP_MALFORMED;
        }
        position = end + 2;
        if (position == size) { /* no blank line, and no body */
            message->headers.size = (size_t)(bytes + position - message->headers.data);
            message->body = lhttp_slice(bytes + position, 0);
            return LHTTP_OK;
        }
    }
}

int lhttp_next_header(const lhttp_message *message, size_t *position, lhttp_text *name, lhttp_text *value) {
    const char *data = message->headers.data;
    size_t size = message->headers.size, begin = *position, colon, end;
    if (begin >= size) return 0;
    for (colon = begin; colon < size && data[colon] != ':';) colon++;
    for (end = colon; end < size && data[end] != '\r';) end++;
    if (colon == size || end == size) return 0;
    *name = lhttp_slice(data + begin, colon - begin);
    *position = end + 2;
    colon++;
    while (colon < end && (data[colon] == ' ' || data[colon] == '\t')) colon++;
    while (end > colon && (data[end - 1] == ' ' || data[end - 1] == '\t')) end--;
    *value = lhttp_slice(data + colon, end - colon);
    return 1;
}

int lhttp_header(const lhttp_message *message, const char *name, lhttp_text *value) {
    size_t position = 0;
    lhttp_text found_name, found_value;
    int found = 0;
    while (lhttp_next_header(message, &position, &found_name, &found_value)) {
        if (lhttp_is_named(found_name, name)) {
            *value = found_value;
            found = 1;
        }
    }
    return found;
}

static void lhttp_put(lhttp_composer *composer, const void *data, size_t size) {
    if (composer->error != LHTTP_OK) return;
    if (size > composer->capacity - composer->size) {
        composer->error = LHTTP_FULL;
        return;
    }
    if (size > 0) memcpy(composer->data + composer->size, data, size);
    composer->size += size;
}

void lhttp_begin(lhttp_composer *composer, void *buffer, size_t capacity, const char *command) {
    size_t size = strlen(command);
    composer->data = (char *)buffer;
    composer->capacity = capacity;
    composer->size = 0;
    composer->error = LHTTP_OK;
    if (size > LHTTP_MAX_COMMAND || !lhttp_is_visible(command, size, '\0')) composer->error = LHTTP_INVALID;
    lhttp_put(composer, LHTTP_START, LHTTP_START_SIZE);
    lhttp_put(composer, command, size);
    lhttp_put(composer, "\r\n", 2);
}

void lhttp_add(lhttp_composer *composer, const char *name, const char *value) {
    size_t name_size = strlen(name), size = strlen(value);
    int blank = size > 0 && (value[0] == ' ' || value[0] == '\t' || value[size - 1] == ' ' || value[size - 1] == '\t');
    if (composer->error == LHTTP_OK &&
        (blank || !lhttp_is_visible(name, name_size, ':') || !lhttp_is_value(value, size)))
        composer->error = LHTTP_INVALID;
    lhttp_put(composer, name, name_size);
    lhttp_put(composer, ":", 1);
    lhttp_put(composer, value, size);
    lhttp_put(composer, "\r\n", 2);
}

int lhttp_finish(lhttp_composer *composer, const void *body, size_t size) {
    lhttp_put(composer, "\r\n", 2);
    lhttp_put(composer, body, size);
    return composer->error;
}

/* The client: its times and its end */

static uint32_t lhttp_now(lhttp_client *client) {
    return client->config.io.now(client->config.io.context);
}

/* A random number below *bound*, good enough to spread devices (xorshift32). */
static uint32_t lhttp_random(lhttp_client *client, uint32_t bound) {
    uint32_t x = client->random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    client->random = x;
    return bound == 0 ? 0 : x % bound;
}

static void lhttp_tell_state(lhttp_client *client, lhttp_state state, int code, lhttp_text reason) {
    client->state = state;
    if (client->config.handlers.state != NULL)
        client->config.handlers.state(client->config.handlers.context, state, code, reason);
}

static void lhttp_tell_error(lhttp_client *client, int status, lhttp_text reason) {
    if (client->config.handlers.error != NULL)
        client->config.handlers.error(client->config.handlers.context, status, reason);
}

/* Answer what waits under a number. Returns whether it did. */
static int lhttp_answered(lhttp_client *client, int32_t id, int status, lhttp_text reason) {
    size_t i;
    for (i = 0; i < client->config.max_pending; i++) {
        if (client->config.pending[i].id == id) {
            client->config.pending[i].id = 0;
            if (client->config.handlers.answer != NULL)
                client->config.handlers.answer(client->config.handlers.context, id, status, reason);
            return 1;
        }
    }
    return 0;
}

/* Let the next attempt to connect wait: longer each time, and a random part of it. */
static void lhttp_schedule(lhttp_client *client) {
    uint32_t wait = client->backoff, half = wait / 2;
    client->due = lhttp_now(client) + half + lhttp_random(client, wait - half + 1);
    client->backoff = wait > client->config.last_wait / 2 ? client->config.last_wait : 2 * wait;
}

/* Ask a server that stops when to come again: "...; retry-after=SECONDS" at the end of a reason. */
static int lhttp_retry_after(lhttp_text reason, uint32_t *milliseconds) {
    static const char name[] = "; retry-after=";
    size_t size = sizeof name - 1, begin, point;
    uint32_t seconds, part = 0;
    if (reason.size <= size) return 0;
    for (begin = reason.size - size; begin > 0 && memcmp(reason.data + begin, name, size) != 0;) begin--;
    if (memcmp(reason.data + begin, name, size) != 0) return 0;
    begin += size;
    for (point = begin; point < reason.size && reason.data[point] != '.';) point++;
    if (point - begin > 5 || !lhttp_number(lhttp_slice(reason.data + begin, point - begin), &seconds)) return 0;
    if (point < reason.size) {
        size_t digits = reason.size - point - 1;
        if (digits > 3 || !lhttp_number(lhttp_slice(reason.data + point + 1, digits), &part)) return 0;
        for (; digits < 3; digits++) part *= 10;
    }
    *milliseconds = seconds * 1000 + part;
    return 1;
}

static void lhttp_disconnect(lhttp_client *client, int code, lhttp_text reason) {
    size_t i;
    uint32_t most;
    if (!client->open) return;
    client->open = 0;
    client->config.io.close(client->config.io.context);
    client->in_size = client->skip = client->out_begin = client->out_end = 0;
    client->code = code;
    lhttp_copy(client->reason, sizeof client->reason, reason);
    for (i = 0; i < client->config.max_subscriptions; i++)
        if (client->config.subscriptions[i].state != LHTTP_FREE)
            client->config.subscriptions[i].state = LHTTP_WANTED;
    if (lhttp_retry_after(lhttp_text_of(client->reason), &most)) {
        if (most > client->config.last_wait) most = client->config.last_wait;
        client->due = lhttp_now(client) + lhttp_random(client, most + 1);
    } else {
        lhttp_schedule(client);
    }
    client->state = LHTTP_WAITING; /* so that handlers of answers can send nothing */
    for (i = 0; i < client->config.max_pending; i++)
        if (client->config.pending[i].id != 0)
            lhttp_answered(client, client->config.pending[i].id, 0, lhttp_text_of(client->reason));
    lhttp_tell_state(client, LHTTP_WAITING, code, lhttp_text_of(client->reason));
}

/* Writing */

/* Make room behind what waits, and begin a message there. */
static void lhttp_compose(lhttp_client *client, lhttp_composer *composer, const char *command) {
    char *output = (char *)client->config.output;
    size_t waiting = client->out_end - client->out_begin, room;
    if (client->out_begin > 0) {
        if (waiting > 0) memmove(output, output + client->out_begin, waiting);
        client->out_begin = 0;
        client->out_end = waiting;
    }
    room = client->config.output_size - waiting;
    if (room <= LHTTP_LENGTH_SIZE) {
        lhttp_begin(composer, output, 0, command);
    } else {
        lhttp_begin(composer, output + waiting + LHTTP_LENGTH_SIZE, room - LHTTP_LENGTH_SIZE, command);
    }
}

/* Put the length of a composed message before it. */
static int lhttp_frame(lhttp_client *client, const lhttp_composer *composer) {
    char *output = (char *)client->config.output + client->out_end;
    char digits[LHTTP_LENGTH_SIZE];
    size_t count;
    if (composer->size > UINT32_MAX) return LHTTP_FULL;
    count = lhttp_digits(digits, (uint32_t)composer->size);
    digits[count++] = '\n';
    memmove(output + count, composer->data, composer->size);
    memcpy(output, digits, count);
    client->out_end += count + composer->size;
    return LHTTP_OK;
}

/* End a message, and send it. */
static int lhttp_commit(lhttp_client *client, lhttp_composer *composer, const void *body, size_t size) {
    int result = lhttp_finish(composer, body, size);
    return result == LHTTP_OK ? lhttp_frame(client, composer) : result;
}

static void lhttp_flush(lhttp_client *client) {
    while (client->open && client->out_begin < client->out_end) {
        const char *output = (const char *)client->config.output + client->out_begin;
        long sent = client->config.io.write(client->config.io.context, output, client->out_end - client->out_begin);
        if (sent < 0) {
            lhttp_disconnect(client, 1006, lhttp_text_of("the connection was lost"));
        } else if (sent == 0) {
            return;
        } else {
            size_t size = client->out_end - client->out_begin;
            client->out_begin += (size_t)sent < size ? (size_t)sent : size;
        }
    }
    if (client->out_begin == client->out_end) client->out_begin = client->out_end = 0;
}

/* Answer a heartbeat, if there is room: where bytes wait, these are an answer, too. */
static void lhttp_beat(lhttp_client *client) {
    if (client->out_end == client->out_begin && client->config.output_size >= 2) {
        memcpy(client->config.output, "0\n", 2);
        client->out_begin = 0;
        client->out_end = 2;
    }
}

/* Write the name of a receipt: a letter and a number, and for subscriptions a point and another number. */
static void lhttp_token(char *token, char kind, uint32_t number, uint32_t serial) {
    size_t size = 1;
    token[0] = kind;
    size += lhttp_digits(token + size, number);
    if (kind == 's') {
        token[size++] = '.';
        lhttp_digits(token + size, serial);
    }
}

/* Send the subscriptions that are wanted, as far as there is room. */
static void lhttp_ask(lhttp_client *client) {
    size_t i;
    if (client->state != LHTTP_READY) return;
    for (i = 0; i < client->config.max_subscriptions; i++) {
        lhttp_subscription *found = &client->config.subscriptions[i];
        lhttp_composer composer;
        char token[32];
        if (found->state == LHTTP_RETRYING && (int32_t)(lhttp_now(client) - found->retry_at) >= 0)
            found->state = LHTTP_WANTED;
        if (found->state != LHTTP_WANTED) continue;
        client->serial = client->serial >= 999999999u ? 1 : client->serial + 1;
        found->serial = client->serial;
        lhttp_token(token, 's', (uint32_t)i, found->serial);
        lhttp_compose(client, &composer, "subscribe");
        lhttp_add(&composer, "subscribe", found->channel);
        if (found->position[0] != '\0') lhttp_add(&composer, "since", found->position);
        lhttp_add(&composer, "gaps", "tell");
        lhttp_add(&composer, "receipt", token);
        if (lhttp_commit(client, &composer, NULL, 0) != LHTTP_OK) return; /* later */
        found->state = LHTTP_ASKED;
    }
}

/* Reading */

static lhttp_subscription *lhttp_find(lhttp_client *client, const char *channel) {
    size_t i;
    for (i = 0; i < client->config.max_subscriptions; i++)
        if (client->config.subscriptions[i].state != LHTTP_FREE &&
            strcmp(client->config.subscriptions[i].channel, channel) == 0)
            return &client->config.subscriptions[i];
    return NULL;
}

static lhttp_subscription *lhttp_find_text(lhttp_client *client, lhttp_text channel) {
    char name[LHTTP_CHANNEL_SIZE];
    if (channel.size == 0 || channel.size >= sizeof name) return NULL;
    lhttp_copy(name, sizeof name, channel);
    return lhttp_find(client, name);
}

static void lhttp_tell_missed(lhttp_client *client, const char *channel) {
    if (client->config.handlers.missed != NULL)
        client->config.handlers.missed(client->config.handlers.context, channel);
}

/* Keep the position of a channel. */
static void lhttp_take_position(lhttp_subscription *found, lhttp_text position) {
    if (position.size > 0 && position.size < sizeof found->position &&
        lhttp_is_visible(position.data, position.size, '\0'))
        lhttp_copy(found->position, sizeof found->position, position);
}

/* Compare two offsets: decimal digits without zeros before them. */
static int lhttp_compare(lhttp_text a, lhttp_text b) {
    if (a.size != b.size) return a.size < b.size ? -1 : 1;
    return a.size == 0 ? 0 : memcmp(a.data, b.data, a.size);
}

static int lhttp_is_offset(lhttp_text text) {
    size_t i;
    if (text.size == 0 || text.size > 19 || (text.size > 1 && text.data[0] == '0')) return 0;
    for (i = 0; i < text.size; i++)
        if (text.data[i] < '0' || text.data[i] > '9') return 0;
    return 1;
}

/* Note the offset of a publication. Returns whether it is new. */
static int lhttp_follow(lhttp_client *client, const lhttp_message *message) {
    lhttp_text offset, after, list, name;
    lhttp_subscription *found;
    char *dash;
    size_t epoch;
    if (!lhttp_header(message, "publish", &list) || !lhttp_header(message, "offset", &offset)) return 1;
    if (!lhttp_is_offset(offset)) return 1;
    if (!lhttp_header(message, "offset-of", &name)) {
        lhttp_text rest = list;
        if (!lhttp_next_word(&rest, &name)) return 1;
    }
    found = lhttp_find_text(client, name);
    if (found == NULL || !lhttp_lists(list, found->channel, NULL)) return 1;
    dash = strrchr(found->position, '-');
    if (dash == NULL) return 1; /* a channel without history, where anybody can write such a header */
    epoch = (size_t)(dash + 1 - found->position);
    if (found->state == LHTTP_SUBSCRIBED) {
        lhttp_text known = lhttp_text_of(dash + 1);
        if (lhttp_compare(offset, known) <= 0) return 0;
        if (lhttp_header(message, "after", &after) && lhttp_is_offset(after) && lhttp_compare(after, known) > 0)
            lhttp_tell_missed(client, found->channel);
    }
    if (epoch + offset.size < sizeof found->position)
        lhttp_copy(found->position + epoch, sizeof found->position - epoch, offset);
    return 1;
}

/* Find the subscription that a receipt belongs to: "s" INDEX "." SERIAL. */
static lhttp_subscription *lhttp_subscription_of(lhttp_client *client, lhttp_text token) {
    uint32_t index, serial;
    size_t point = 1;
    if (token.size < 2 || token.data[0] != 's') return NULL;
    while (point < token.size && token.data[point] != '.') point++;
    if (point == token.size || !lhttp_number(lhttp_slice(token.data + 1, point - 1), &index)) return NULL;
    if (!lhttp_number(lhttp_slice(token.data + point + 1, token.size - point - 1), &serial)) return NULL;
    if (index >= client->config.max_subscriptions) return NULL;
    if (client->config.subscriptions[index].state != LHTTP_ASKED) return NULL;
    return client->config.subscriptions[index].serial == serial ? &client->config.subscriptions[index] : NULL;
}

static void lhttp_is_subscribed(lhttp_client *client, lhttp_subscription *found, const lhttp_message *receipt) {
    lhttp_text list, position;
    int recovered = lhttp_header(receipt, "recovered", &list) && lhttp_lists(list, found->channel, NULL);
    int missed = lhttp_header(receipt, "missed", &list) && lhttp_lists(list, found->channel, NULL);
    char channel[LHTTP_CHANNEL_SIZE];
    found->state = LHTTP_SUBSCRIBED;
    if (lhttp_header(receipt, "position", &list) && lhttp_lists(list, found->channel, &position))
        lhttp_take_position(found, position);
    memcpy(channel, found->channel, sizeof channel); /* a handler may unsubscribe */
    if (client->config.handlers.subscribed != NULL)
        client->config.handlers.subscribed(client->config.handlers.context, channel, recovered);
    if (missed) lhttp_tell_missed(client, channel);
}

static void lhttp_is_refused(lhttp_client *client, lhttp_subscription *found, int status, lhttp_text reason) {
    char channel[LHTTP_CHANNEL_SIZE];
    memcpy(channel, found->channel, sizeof channel);
    if (status >= 500) {
        found->state = LHTTP_RETRYING;
        found->retry_at = lhttp_now(client) + LHTTP_RETRY;
    } else {
        found->state = LHTTP_FREE;
    }
    if (client->config.handlers.refused != NULL)
        client->config.handlers.refused(client->config.handlers.context, channel, status, reason);
}

static void lhttp_is_ready(lhttp_client *client) {
    lhttp_tell_state(client, LHTTP_READY, 0, lhttp_text_of(""));
    lhttp_ask(client);
}

static void lhttp_take_error(lhttp_client *client, const lhttp_message *message) {
    lhttp_text token = lhttp_slice("", 0), value = lhttp_slice("", 0), reason = lhttp_slice("", 0);
    lhttp_subscription *found;
    uint32_t number;
    int status = 500;
    lhttp_header(message, "reason", &reason);
    if (lhttp_header(message, "status", &value) && lhttp_number(value, &number) && number < 1000) status = (int)number;
    if (lhttp_header(message, "receipt-id", &token)) {
        if (lhttp_is(token, "l") && client->state == LHTTP_LOGGING_IN) {
            lhttp_tell_error(client, status, reason);
            client->backoff = client->config.last_wait;
            lhttp_disconnect(client, 1008, reason);
            return;
        }
        found = lhttp_subscription_of(client, token);
        if (found != NULL) {
            lhttp_is_refused(client, found, status, reason);
            return;
        }
        if (token.size > 1 && token.data[0] == 'p' &&
            lhttp_number(lhttp_slice(token.data + 1, token.size - 1), &number) &&
            lhttp_answered(client, (int32_t)number, status, reason))
            return;
    } else if (lhttp_header(message, "unsubscribed", &value)) {
        found = lhttp_find_text(client, value);
        if (found != NULL) {
            lhttp_is_refused(client, found, status < 500 ? status : 403, reason);
            return;
        }
    }
    lhttp_tell_error(client, status, reason);
}

static void lhttp_take(lhttp_client *client, const char *data, size_t size) {
    lhttp_message message;
    lhttp_text value, token;
    lhttp_subscription *found;
    uint32_t number;
    if (lhttp_parse(data, size, &message) != LHTTP_OK) {
        lhttp_disconnect(client, 1002, lhttp_text_of("the server has sent what is no message"));
        return;
    }
    if (lhttp_header(&message, "publish", &value)) {
        /* a publication, whatever its command */
    } else if (lhttp_is(message.command, "close")) {
        int code = 1006;
        lhttp_text reason = lhttp_slice("", 0);
        if (lhttp_header(&message, "code", &value) && lhttp_number(value, &number) && number < 10000)
            code = (int)number;
        lhttp_header(&message, "reason", &reason);
        lhttp_disconnect(client, code, reason);
        return;
    } else if (lhttp_is(message.command, "error")) {
        lhttp_take_error(client, &message);
        return;
    } else if (lhttp_is(message.command, "login") && client->state == LHTTP_LOGGING_IN) {
        client->backoff = client->config.first_wait;
        lhttp_is_ready(client);
        return;
    } else if (lhttp_is(message.command, "receipt") && lhttp_header(&message, "receipt-id", &token)) {
        client->backoff = client->config.first_wait;
        found = lhttp_subscription_of(client, token);
        if (found != NULL) {
            lhttp_is_subscribed(client, found, &message);
        } else if (token.size > 1 && token.data[0] == 'p' &&
                   lhttp_number(lhttp_slice(token.data + 1, token.size - 1), &number)) {
            lhttp_answered(client, (int32_t)number, 200, lhttp_slice("", 0));
        }
        return;
    } else if (lhttp_is(message.command, "missed") && lhttp_header(&message, "channel", &value)) {
        found = lhttp_find_text(client, value);
        if (found != NULL) {
            char channel[LHTTP_CHANNEL_SIZE];
            memcpy(channel, found->channel, sizeof channel);
            if (lhttp_header(&message, "position", &value)) lhttp_take_position(found, value);
            lhttp_tell_missed(client, channel);
        }
        return;
    }
    if (lhttp_follow(client, &message) && client->config.handlers.message != NULL)
        client->config.handlers.message(client->config.handlers.context, &message);
}

/* Read the length at the beginning of the input. Returns bytes of its line, 0 if it is not whole, -1 if it is none. */
static int lhttp_length(const char *data, size_t size, uint64_t *length) {
    size_t i;
    uint64_t found = 0;
    for (i = 0; i < size && i < LHTTP_LENGTH_SIZE; i++) {
        if (data[i] == '\n' && i > 0) {
            *length = found;
            return (int)i + 1;
        }
        if (data[i] < '0' || data[i] > '9' || (i == 1 && data[0] == '0')) return -1;
        found = found * 10 + (uint64_t)(data[i] - '0');
    }
    return i == LHTTP_LENGTH_SIZE ? -1 : 0;
}

/* Take the whole messages out of the input. */
static void lhttp_take_all(lhttp_client *client) {
    char *input = (char *)client->config.input;
    size_t position = 0;
    while (client->open) {
        uint64_t length = 0;
        int line;
        if (client->skip > 0) { /* the rest of a message that is too large */
            size_t some = client->in_size - position < client->skip ? client->in_size - position : client->skip;
            client->skip -= some;
            position += some;
            if (client->skip > 0) break;
        }
        line = lhttp_length(input + position, client->in_size - position, &length);
        if (line < 0) {
            lhttp_disconnect(client, 1002, lhttp_text_of("the server has sent what is no length"));
            return;
        }
        if (line == 0) break;
        if (length > client->config.input_size - LHTTP_LENGTH_SIZE) {
            client->skip = (size_t)length;
            if ((uint64_t)client->skip != length) { /* of a small machine */
                lhttp_disconnect(client, 1009, lhttp_text_of("a message is too large"));
                return;
            }
            position += (size_t)line;
            lhttp_tell_error(client, 413, lhttp_text_of("a message was too large for the input buffer, and left out"));
            continue;
        }
        if (length > client->in_size - position - (size_t)line) break;
        position += (size_t)line;
        if (length == 0) {
            client->backoff = client->config.first_wait;
            lhttp_beat(client);
        } else {
            lhttp_take(client, input + position, (size_t)length);
            position += (size_t)length;
        }
    }
    if (!client->open) return; /* the input is empty now */
    client->in_size -= position;
    if (position > 0 && client->in_size > 0) memmove(input, input + position, client->in_size);
}

static void lhttp_read(lhttp_client *client) {
    char *input = (char *)client->config.input;
    size_t budget = client->config.input_size;
    while (client->open && budget > 0) {
        size_t room = client->config.input_size - client->in_size;
        long size;
        if (room > budget) room = budget;
        size = client->config.io.read(client->config.io.context, input + client->in_size, room);
        if (size == 0) return;
        if (size < 0 || (size_t)size > room) {
            lhttp_disconnect(client, 1006, lhttp_text_of("the connection was lost"));
            return;
        }
        client->heard_at = lhttp_now(client);
        client->asking = 0;
        client->in_size += (size_t)size;
        budget -= (size_t)size;
        lhttp_take_all(client);
    }
}

/* For the program */

int lhttp_init(lhttp_client *client, const lhttp_config *config) {
    if (config->io.open == NULL || config->io.read == NULL || config->io.write == NULL || config->io.wait == NULL ||
        config->io.close == NULL || config->io.now == NULL)
        return LHTTP_INVALID;
    if (config->input == NULL || config->input_size < 64 || config->output == NULL || config->output_size < 64)
        return LHTTP_INVALID;
    if ((config->subscriptions == NULL && config->max_subscriptions > 0) || config->max_subscriptions > 100000000 ||
        (config->pending == NULL && config->max_pending > 0))
        return LHTTP_INVALID;
    memset(client, 0, sizeof *client);
    client->config = *config;
    if (config->max_subscriptions > 0)
        memset(config->subscriptions, 0, config->max_subscriptions * sizeof *config->subscriptions);
    if (config->max_pending > 0) memset(config->pending, 0, config->max_pending * sizeof *config->pending);
    if (client->config.first_wait == 0) client->config.first_wait = 1000;
    if (client->config.last_wait == 0) client->config.last_wait = 60000;
    if (client->config.last_wait < client->config.first_wait) client->config.last_wait = client->config.first_wait;
    if (client->config.silence == 0) client->config.silence = 45000;
    if (client->config.patience == 0) client->config.patience = 10000;
    client->random = config->seed == 0 ? 2463534242u : config->seed;
    client->backoff = client->config.first_wait;
    client->state = LHTTP_WAITING;
    client->due = lhttp_now(client);
    return LHTTP_OK;
}

static void lhttp_connect(lhttp_client *client) {
    lhttp_composer composer;
    const lhttp_config *config = &client->config;
    if (config->io.open(config->io.context) != 0) {
        lhttp_schedule(client);
        return;
    }
    client->open = 1;
    client->asking = 0;
    client->in_size = client->skip = client->out_begin = client->out_end = 0;
    client->heard_at = client->asked_at = lhttp_now(client);
    if (config->token == NULL && config->user == NULL) {
        lhttp_is_ready(client);
        if (client->open && client->out_end == 0) lhttp_beat(client); /* the first message opens the connection */
        return;
    }
    lhttp_compose(client, &composer, "login");
    if (config->token != NULL) {
        lhttp_add(&composer, "token", config->token);
    } else {
        lhttp_add(&composer, "user", config->user);
        lhttp_add(&composer, "password", config->password == NULL ? "" : config->password);
    }
    lhttp_add(&composer, "receipt", "l");
    if (lhttp_commit(client, &composer, NULL, 0) != LHTTP_OK) {
        lhttp_tell_error(client, 400, lhttp_text_of("the login is malformed, or too large for the output buffer"));
        lhttp_disconnect(client, 1008, lhttp_text_of("the login cannot be sent"));
        return;
    }
    lhttp_tell_state(client, LHTTP_LOGGING_IN, 0, lhttp_text_of(""));
}

/* Look at the times. Returns the milliseconds until the next of them. */
static uint32_t lhttp_watch(lhttp_client *client) {
    uint32_t now = lhttp_now(client), waited;
    if (client->state == LHTTP_LOGGING_IN || client->asking) {
        waited = now - client->asked_at;
        if (waited < client->config.patience) return client->config.patience - waited;
        lhttp_disconnect(client, 1006, lhttp_text_of("the server does not answer"));
        return 0;
    }
    waited = now - client->heard_at;
    if (waited < client->config.silence) return client->config.silence - waited;
    if (client->out_begin == client->out_end) {
        lhttp_composer composer;
        lhttp_compose(client, &composer, "ping");
        lhttp_add(&composer, "receipt", "a");
        (void)lhttp_commit(client, &composer, NULL, 0); /* it fits: nothing else waits, and the buffer has 64 bytes */
    }
    client->asking = 1;
    client->asked_at = now;
    return client->config.patience;
}

int lhttp_poll(lhttp_client *client, int milliseconds) {
    uint32_t most = milliseconds > 0 ? (uint32_t)milliseconds : 0, until = most;
    if (client->inside) return LHTTP_INVALID;
    client->inside = 1;
    if (!client->open && !client->stopped) {
        int32_t wait = (int32_t)(client->due - lhttp_now(client));
        if (wait <= 0)
            lhttp_connect(client);
        else if ((uint32_t)wait < until)
            until = (uint32_t)wait;
    }
    if (client->open) {
        lhttp_ask(client);
        lhttp_flush(client);
    }
    if (client->open) {
        uint32_t next = lhttp_watch(client);
        if (next < until) until = next;
        lhttp_flush(client);
    }
    client->config.io.wait(client->config.io.context, client->open && client->out_begin < client->out_end, (int)until);
    if (client->open) {
        lhttp_flush(client);
        lhttp_read(client);
        lhttp_flush(client);
    }
    client->inside = 0;
    return LHTTP_OK;
}

static int lhttp_is_channel(const char *channel) {
    size_t size = strlen(channel), i;
    if (size == 0 || size >= LHTTP_CHANNEL_SIZE || !lhttp_is_value(channel, size)) return 0;
    for (i = 0; i < size; i++)
        if (channel[i] == ' ' || channel[i] == '\t') return 0;
    return 1;
}

int lhttp_subscribe(lhttp_client *client, const char *channel) {
    size_t i;
    if (!lhttp_is_channel(channel)) return LHTTP_INVALID;
    if (lhttp_find(client, channel) != NULL) return LHTTP_OK;
    for (i = 0; i < client->config.max_subscriptions; i++) {
        lhttp_subscription *found = &client->config.subscriptions[i];
        if (found->state == LHTTP_FREE) {
            memset(found, 0, sizeof *found);
            lhttp_copy(found->channel, sizeof found->channel, lhttp_text_of(channel));
            found->state = LHTTP_WANTED;
            return LHTTP_OK;
        }
    }
    return LHTTP_FULL;
}

int lhttp_unsubscribe(lhttp_client *client, const char *channel) {
    lhttp_subscription *found = lhttp_find(client, channel);
    if (found == NULL) return LHTTP_INVALID;
    if (client->open && (found->state == LHTTP_ASKED || found->state == LHTTP_SUBSCRIBED)) {
        lhttp_composer composer;
        int result;
        lhttp_compose(client, &composer, "unsubscribe");
        lhttp_add(&composer, "unsubscribe", channel);
        result = lhttp_commit(client, &composer, NULL, 0);
        if (result != LHTTP_OK) return result;
    }
    found->state = LHTTP_FREE;
    return LHTTP_OK;
}

/* Take a number for an answer. Returns it, or an error. */
static int32_t lhttp_new_id(lhttp_client *client, lhttp_pending **place) {
    size_t i;
    for (i = 0; i < client->config.max_pending; i++) {
        if (client->config.pending[i].id == 0) {
            *place = &client->config.pending[i];
            client->last_id = client->last_id >= 999999999 ? 1 : client->last_id + 1;
            return client->last_id;
        }
    }
    return LHTTP_FULL;
}

int32_t lhttp_publish(lhttp_client *client, const lhttp_publication *publication) {
    lhttp_composer composer;
    lhttp_pending *place = NULL;
    char token[32];
    int32_t id = 0;
    int result;
    if (publication->channel == NULL || (publication->body == NULL && publication->size > 0)) return LHTTP_INVALID;
    if (client->state != LHTTP_READY) return LHTTP_OFFLINE;
    if (publication->answer) {
        id = lhttp_new_id(client, &place);
        if (id < 0) return id;
    }
    lhttp_compose(client, &composer, publication->command == NULL ? "publish" : publication->command);
    lhttp_add(&composer, "publish", publication->channel);
    if (publication->message_id != NULL) lhttp_add(&composer, "message-id", publication->message_id);
    if (id > 0) {
        lhttp_token(token, 'p', (uint32_t)id, 0);
        lhttp_add(&composer, "receipt", token);
    }
    result = lhttp_commit(client, &composer, publication->body, publication->size);
    if (result != LHTTP_OK) return result;
    if (place != NULL) place->id = id;
    return id;
}

int32_t lhttp_ping(lhttp_client *client) {
    lhttp_composer composer;
    lhttp_pending *place = NULL;
    char token[32];
    int32_t id;
    int result;
    if (client->state != LHTTP_READY) return LHTTP_OFFLINE;
    id = lhttp_new_id(client, &place);
    if (id < 0) return id;
    lhttp_token(token, 'p', (uint32_t)id, 0);
    lhttp_compose(client, &composer, "ping");
    lhttp_add(&composer, "receipt", token);
    result = lhttp_commit(client, &composer, NULL, 0);
    if (result != LHTTP_OK) return result;
    place->id = id;
    return id;
}

int lhttp_send(lhttp_client *client, const void *message, size_t size) {
    lhttp_message parsed;
    lhttp_composer composer;
    if (client->state != LHTTP_READY) return LHTTP_OFFLINE;
    if (lhttp_parse(message, size, &parsed) != LHTTP_OK) return LHTTP_INVALID;
    lhttp_compose(client, &composer, "x"); /* makes room */
    if (composer.capacity < size) return LHTTP_FULL;
    memmove(composer.data, message, size);
    composer.size = size;
    return lhttp_frame(client, &composer);
}

void lhttp_close(lhttp_client *client, int forever) {
    if (forever) client->stopped = 1;
    lhttp_flush(client);
    lhttp_disconnect(client, 1000, lhttp_text_of("closed by the program"));
}

#ifndef LHTTP_NO_POSIX

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

static int lhttp_posix_ready(int descriptor, short events, int milliseconds) {
    struct pollfd watched;
    watched.fd = descriptor;
    watched.events = events;
    watched.revents = 0;
    return poll(&watched, descriptor < 0 ? 0 : 1, milliseconds);
}

static int lhttp_posix_open(void *context) {
    lhttp_posix *posix = (lhttp_posix *)context;
    int one = 1, error = 0, flags;
    socklen_t size = sizeof error;
    int descriptor = socket(posix->address.ss_family, SOCK_STREAM, 0);
    if (descriptor < 0) return -1;
    flags = fcntl(descriptor, F_GETFL, 0);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) < 0 ||
        fcntl(descriptor, F_SETFD, FD_CLOEXEC) < 0)
        goto failed;
    (void)setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(descriptor, (const struct sockaddr *)&posix->address, posix->address_size) != 0) {
        if (errno != EINPROGRESS && errno != EINTR) goto failed;
        if (lhttp_posix_ready(descriptor, POLLOUT, posix->timeout) <= 0) goto failed;
        if (getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0) goto failed;
    }
    posix->descriptor = descriptor;
    return 0;
failed:
    (void)close(descriptor);
    return -1;
}

static long lhttp_posix_read(void *context, void *buffer, size_t size) {
    lhttp_posix *posix = (lhttp_posix *)context;
    ssize_t found = recv(posix->descriptor, buffer, size, 0);
    if (found > 0) return (long)found;
    return found < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? 0 : -1;
}

static long lhttp_posix_write(void *context, const void *data, size_t size) {
    lhttp_posix *posix = (lhttp_posix *)context;
    ssize_t sent = send(posix->descriptor, data, size, MSG_NOSIGNAL);
    if (sent >= 0) return (long)sent;
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
}

static void lhttp_posix_wait(void *context, int writing, int milliseconds) {
    lhttp_posix *posix = (lhttp_posix *)context;
    (void)lhttp_posix_ready(posix->descriptor, (short)(writing ? POLLIN | POLLOUT : POLLIN), milliseconds);
}

static void lhttp_posix_close(void *context) {
    lhttp_posix *posix = (lhttp_posix *)context;
    (void)close(posix->descriptor);
    posix->descriptor = -1;
}

static uint32_t lhttp_posix_now(void *context) {
    struct timespec now;
    (void)context;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0;
    return (uint32_t)((uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u);
}

int lhttp_posix_init(lhttp_posix *posix, lhttp_io *io, const char *host, const char *port) {
    struct addrinfo hints, *found = NULL;
    memset(posix, 0, sizeof *posix);
    memset(&hints, 0, sizeof hints);
    hints.ai_socktype = SOCK_STREAM;
    if (getaddrinfo(host, port, &hints, &found) != 0) return -1;
    if (found->ai_addrlen > sizeof posix->address) {
        freeaddrinfo(found);
        return -1;
    }
    memcpy(&posix->address, found->ai_addr, found->ai_addrlen);
    posix->address_size = found->ai_addrlen;
    freeaddrinfo(found);
    posix->descriptor = -1;
    posix->timeout = 10000;
    io->context = posix;
    io->open = lhttp_posix_open;
    io->read = lhttp_posix_read;
    io->write = lhttp_posix_write;
    io->wait = lhttp_posix_wait;
    io->close = lhttp_posix_close;
    io->now = lhttp_posix_now;
    return 0;
}

#endif /* LHTTP_NO_POSIX */

#endif /* LHTTP_IMPLEMENTED */
#endif /* LHTTP_IMPLEMENTATION */
