"""The servers of the standard library that block in accept(): a thread or a process per connection."""

import signal
import socketserver
import sys
import threading

ANSWER = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello\n"


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline().strip():
            pass
        self.wfile.write(ANSWER)


class ThreadingServer(socketserver.ThreadingTCPServer):
    request_queue_size = 128
    allow_reuse_address = True  # as http.server; docs/library.md says what happens without


class ForkingServer(socketserver.ForkingTCPServer):
    request_queue_size = 128
    allow_reuse_address = True


def main(kind: str, port: int) -> None:
    server = {"threading": ThreadingServer, "forking": ForkingServer}[kind](("127.0.0.1", port), Handler)
    # shutdown() waits for serve_forever() to return, so it cannot run in that thread.
    signal.signal(signal.SIGTERM, lambda number, frame: threading.Thread(target=server.shutdown).start())
    with server:
        server.serve_forever()


main(sys.argv[1], int(sys.argv[2]))
