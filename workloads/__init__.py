"""What is measured: the servers, the variants they run as, and the load they get."""

from workloads.nginx import Nginx

WORKLOADS = {server.name: server for server in (Nginx(),)}
