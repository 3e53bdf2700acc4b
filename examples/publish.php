<?php

/*
 * Publish from PHP: one HTTP POST to the server, with nothing but PHP itself.
 *
 *     php examples/publish.php http://127.0.0.1:8081/publish room.a "hello from PHP"
 *
 * If the operator has set a token, put it into the environment variable LHTTP_PUBLISH_TOKEN.
 */

function lhttp_publish(string $url, string $channel, string $command, string $body, ?string $token = null): void
{
    // A line break in one of these would begin a header of its own.
    if (preg_match('/[\x00-\x20\x7f]/', $channel . $command)) {
        throw new InvalidArgumentException('channel and command hold no blanks and no control characters');
    }
    $headers = ['Content-Type: text/plain; charset=utf-8'];
    if ($token !== null) {
        $headers[] = "Authorization: Bearer $token";
    }
    $context = stream_context_create(['http' => [
        'method' => 'POST',
        'header' => $headers,
        'content' => "LHTTP/1.0 $command\r\npublish:$channel\r\n\r\n$body",
        'timeout' => 10,
        'ignore_errors' => true,
    ]]);
    $stream = @fopen($url, 'r', false, $context);
    if ($stream === false) {
        throw new RuntimeException("cannot reach $url");
    }
    $status = stream_get_meta_data($stream)['wrapper_data'][0];
    $answer = stream_get_contents($stream);
    fclose($stream);
    if (!preg_match('#^HTTP/\S+ 200( |$)#', $status)) {
        throw new RuntimeException(trim($answer));
    }
}

if ($argc !== 4) {
    fwrite(STDERR, "usage: publish.php URL CHANNEL TEXT\n");
    exit(2);
}
try {
    lhttp_publish($argv[1], $argv[2], 'chat', $argv[3], getenv('LHTTP_PUBLISH_TOKEN') ?: null);
} catch (Exception $error) {
    fwrite(STDERR, $error->getMessage() . "\n");
    exit(1);
}
