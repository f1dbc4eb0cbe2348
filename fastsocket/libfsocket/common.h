/* SPDX-License-Identifier: MIT */
/*
 * libfsocket: the parts of Fastsocket that work with an unmodified kernel, for unmodified applications.
 *
 * One rule holds everywhere: when in doubt, do what libc would have done.
 *
 * The files, from the bottom up. A file calls only files that stand before it (tests/test_rooms.py).
 *
 * real.c                 libc's own calls, which the library's functions replace
 * readable.c             whether the kernel could read memory that the application points at
 * clock.c                the time
 * log.c                  the library's lines on stderr
 * settings.c             what the environment asks for
 * sockopt.c              socket options, cookies, and what kind a socket is
 * descriptors.c          one byte per descriptor: nothing, a listener, a clone, a connection just accepted, …
 * process.c              the process: its threads, its seccomp filters; and other processes
 * affinity.c             pins a worker to its CPU, but not what the worker starts
 * shared.c               memory that all processes of a server share: counters, and who serves what
 * seats.c                which threads accept from which clone, and which of them live
 * places.c               the places for listeners in the shared memory
 * pulse.c                when a worker last came back to its loop, and how many connections wait for it
 * reasons.c              why a listener or a worker is not accelerated
 * quiet.c                keeps signals from coming between two parts of a wait
 * tables.c               the process's listeners, and the lock on them
 *
 * Fewer packets.
 * connections.c          the connections, and what a thread did with them since it last waited
 * habits.c               what the connections of a listener nearly always do
 * answer_with_fin.c      what is written leaves together with the FIN
 * delayed_ack.c          the answer acknowledges the request
 * opening.c              the handshake of an outgoing connection is acknowledged by its first data
 * defer_accept.c         a connection is accepted when its first data is there
 *
 * Local Listen Table: a listener per CPU.
 * options.c              gives a clone the same options as its listener
 * incoming_cpu.c         whether this kernel steers among clones
 * group.c                whether another server listens on the same address
 * mark.c                 which process has the clones of a listener, written on the listener
 * clone.c                the clones: sockets bound to the address of a listener, one for each CPU
 * balance.c              makes the kernel give a connection to another worker if its own is away or busy
 * withdrawal.c           keeps new connections from the clones until a successor has them
 * follow.c               does to the clones what the application does to its listener
 * adopt.c                a worker takes the clone of its CPU
 * queue.c                a worker asks the kernel how many connections wait for it
 * neighbours.c           a clone whose worker is gone, stopped or busy is looked after by other workers
 * poll_bell.c            a bell (bell.c) for workers that wait by poll() or select()
 * bell.c                 wakes a sleeping worker when a neighbour does not come for a connection
 * accept.c               accepts from the clone first, then from the application's listener
 * rest.c                 a listener that the application takes out of its epoll only for a moment
 * watches.c              which epolls have a listener of the application
 * look.c                 looks after watches and clones now and then
 * take_over.c            gets the clones from the program before this one
 * listeners.c            the application's listeners: found, duplicated, inherited, closed
 *
 * Fast-Epoll, Receive Flow Deliver.
 * fast_epoll.c           a connection enters the epoll only when it has to wait
 * ports.c                the next source port of a CPU
 * flow_deliver.c         an outgoing connection has a source port of its CPU
 *
 * What the application does, and what the library does then.
 * turn.c                 it reads and writes connections
 * closing.c              it closes a descriptor
 * fork.c                 it forks
 * passing.c              it passes a descriptor over a Unix socket
 * successor.c            it becomes another program (exec)
 * waiting.c              it waits for events by epoll
 * polling.c              it waits for events by poll() or select()
 * preload*.c             it calls libc: the functions that stand in front of libc's
 */
#ifndef COMMON_H
#define COMMON_H

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define likely(x) __builtin_expect(!!(x), 1)
/* The library is loaded together with the program, so its thread-local variables can be found without a call. */
#define INITIAL_EXEC __attribute__((tls_model("initial-exec")))
#define THREAD_LOCAL static __thread INITIAL_EXEC

#endif
