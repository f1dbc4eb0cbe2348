// Node's cluster with two workers. The primary ends when its workers have.
"use strict";

const cluster = require("node:cluster");
const http = require("node:http");

const WORKERS = 2;
const port = Number(process.argv[2]);

function answer(request, response) {
    response.writeHead(200, { "Content-Type": "text/plain", "Connection": "close" });
    response.end("hello\n");
}

if (cluster.isPrimary) {
    for (let i = 0; i < WORKERS; i++)
        cluster.fork();
    process.on("SIGTERM", () => cluster.disconnect());
} else {
    process.on("SIGTERM", () => {}); // the primary disconnects it
    http.createServer(answer).listen(port, "127.0.0.1");
}
