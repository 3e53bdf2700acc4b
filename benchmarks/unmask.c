/*
 * What compiled code would bring: whole masked data frames of one read, taken apart as lhttp_tx.transports.websocket.reader does.
 *
 * Measured by benchmarks.parts, which compiles it where there is a C compiler; no part of the server. It does less than
 * the lane: it looks for no UTF-8, and it stops at whatever is not the plainest frame (RFC 6455, section 5.2).
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

/* Unmask size bytes, eight at a time. */
static void
unmask(unsigned char *to, const unsigned char *from, Py_ssize_t size, const unsigned char *mask)
{
    uint32_t four;
    uint64_t key, word;
    Py_ssize_t i = 0;

    memcpy(&four, mask, 4);
    key = (uint64_t)four << 32 | four;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, from + i, 8);
        word ^= key;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++)
        to[i] = from[i] ^ mask[i & 3];
}

/* Return a list of the payloads of the frames that data begins with. */
PyObject *
take_payloads(PyObject *data)
{
    const unsigned char *at = (const unsigned char *)PyBytes_AS_STRING(data);
    const unsigned char *end = at + PyBytes_GET_SIZE(data);
    PyObject *payloads = PyList_New(0);

    while (payloads != NULL && end - at >= 8) {
        Py_ssize_t size = at[1] & 0x7f, head = 6;
        PyObject *payload;

        if (size == 126) {
            size = at[2] << 8 | at[3];
            head = 8;
        }
        if (!(at[1] & 0x80) || size == 127 || end - at < head + size)
            break;
        payload = PyBytes_FromStringAndSize(NULL, size);
        if (payload == NULL || PyList_Append(payloads, payload) < 0)
            Py_CLEAR(payloads);
        else
            unmask((unsigned char *)PyBytes_AS_STRING(payload), at + head, size, at + head - 4);
        Py_XDECREF(payload);
        at += head + size;
    }
    return payloads;
}
