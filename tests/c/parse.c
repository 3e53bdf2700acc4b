/*
 * Reads messages in frames, and says what it has read: the command, the headers and the body in hexadecimal, and then the
 * message composed again. A message that is none is "malformed". For tests/integration/test_c_client.py.
 */
#define LHTTP_IMPLEMENTATION
#include "lhttp.h"

#include <stdio.h>
#include <stdlib.h>

static void put(lhttp_text text) {
    size_t i;
    for (i = 0; i < text.size; i++) printf("%02x", (unsigned)(unsigned char)text.data[i]);
}

static char *string_of(lhttp_text text) {
    char *string = malloc(text.size + 1);
    if (string == NULL) exit(3);
    lhttp_copy(string, text.size + 1, text);
    return string;
}

int main(void) {
    unsigned long size;
    while (scanf("%lu", &size) == 1 && getchar() == '\n') {
        /* Exactly as large as the message, so that a sanitizer sees a step beyond it. */
        char *data = malloc(size > 0 ? size : 1), *buffer = malloc(2 * size + 64), *command, *name, *value;
        lhttp_message message;
        lhttp_composer composer;
        lhttp_text found_name, found_value, last;
        size_t position = 0;
        if (data == NULL || buffer == NULL || fread(data, 1, size, stdin) != size) return 3;
        if (lhttp_parse(data, size, &message) != LHTTP_OK) {
            printf("malformed\n");
        } else {
            command = string_of(message.command);
            lhttp_begin(&composer, buffer, 2 * size + 64, command);
            free(command);
            put(message.command);
            while (lhttp_next_header(&message, &position, &found_name, &found_value)) {
                name = string_of(found_name);
                value = string_of(found_value);
                lhttp_add(&composer, name, value);
                if (!lhttp_header(&message, name, &last)) return 4;
                free(name);
                free(value);
                printf(" ");
                put(found_name);
                printf("=");
                put(found_value);
            }
            printf(" ");
            put(message.body);
            if (lhttp_finish(&composer, message.body.data, message.body.size) != LHTTP_OK) return 5;
            printf(" ");
            put(lhttp_slice(composer.data, composer.size));
            printf("\n");
        }
        free(data);
        free(buffer);
    }
    return 0;
}
