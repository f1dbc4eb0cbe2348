"""One page, as a WSGI and as an ASGI application."""

PAGE = b"hello\n"


def wsgi(environment, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(PAGE)))])
    return [PAGE]


async def asgi(scope, receive, send):
    if scope["type"] != "http":  # the lifespan protocol, which is optional
        raise NotImplementedError(scope["type"])
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(PAGE)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": PAGE})
