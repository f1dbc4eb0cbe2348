"""nginx of whose requests one in a hundred keeps its worker busy for some 20 ms, as a page that must be computed."""

from workloads.nginx import OBJECT, Nginx, Site

# A regular expression that fails only after it has tried each way to divide this text into three. nginx chooses the
# requests by a hash of the connection's number.
TEXT = 500 * "a"
SLOW = Site(
    answer=f'if ($text ~ "^a*a*a*[bc]") {{ return 500; }} {OBJECT.answer}',
    upstream=f'split_clients "$connection" $text {{ 1% {TEXT}; * ""; }}',
)


class NginxSlow(Nginx):
    """A worker that computes does not come back to its loop, and the connections that it has been given wait."""

    name = "nginx-slow"
    site = SLOW
