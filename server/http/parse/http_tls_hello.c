/* http_tls_hello - only headers are kept; everything else is passed by. */
#include "server/http/parse/http_tls_hello.h"

#define RECORD_HANDSHAKE 22

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void take_record_header(struct tls_hello *hello, uint8_t byte)
{
    hello->record[hello->record_len++] = byte;
    if (hello->record_len < sizeof hello->record)
        return;
    hello->record_len = 0;
    hello->is_handshake = hello->record[0] == RECORD_HANDSHAKE;
    hello->record_left = (size_t)hello->record[3] << 8 | hello->record[4];
}

static void take_message_header(struct tls_hello *hello, uint8_t byte)
{
    hello->message[hello->message_len++] = byte;
    if (hello->message_len < sizeof hello->message)
        return;
    hello->message_len = 0;
    hello->message_left = (size_t)hello->message[1] << 16 | (size_t)hello->message[2] << 8 | hello->message[3];
}

/* How many bytes of a record's content were taken. */
static size_t take_content(struct tls_hello *hello, const uint8_t *data, size_t len)
{
    size_t n = least(len, hello->record_left);
    if (hello->is_handshake && hello->message_left > 0) {
        n = least(n, hello->message_left);
        hello->message_left -= n;
    } else if (hello->is_handshake) {
        n = 1;
        take_message_header(hello, *data);
    }
    hello->record_left -= n;
    return n;
}

bool tls_hello_fits(struct tls_hello *hello, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t n = 1;
        if (hello->record_left == 0)
            take_record_header(hello, *data);
        else
            n = take_content(hello, data, len);
        if (hello->message_left > TLS_HELLO_MAX)
            return false;
        data += n;
        len -= n;
    }
    return true;
}
