"""nginx with slow requests: one in a hundred keeps its worker busy for some 20 ms, as a page that must be computed."""

from workloads.nginx import OBJECT, Nginx, Site

# A slow request matches a regular expression, which fails only after it has tried each way to divide this text into
# three. nginx chooses the slow requests by a hash of the connection's number.
TEXT = 500 * "a"
SLOW = Site(
    answer=f'if ($text ~ "^a*a*a*[bc]") {{ return 500; }} {OBJECT.answer}',
    upstream=f'split_clients "$connection" $text {{ 1% {TEXT}; * ""; }}',
)


class NginxSlow(Nginx):
    """nginx with slow requests. A busy worker does not come back to its loop, so the connections given to it wait."""

    name = "nginx-slow"
    site = SLOW
