/* SPDX-License-Identifier: MIT */
/*
 * libfsocket: the parts of Fastsocket that fit before an unmodified kernel, for unmodified applications.
 *
 * preload.c       the libc calls we stand in front of
 * real.c          the calls behind ours
 * log.c           the one way in which the library speaks
 * settings.c      what the environment asks for, read once
 * descriptors.c   what each descriptor is to us: nothing, a listener, a clone, a connection just accepted, …
 * listeners.c     the application's listeners: found, duplicated, inherited, closed
 * page.c          what happened and who serves what, in memory that the whole server shares
 *
 * Local Listen Table, a listener per CPU:
 * clone.c         sockets that are bound to a listener's address, one for each CPU
 * options.c       a clone is its listener's equal
 * group.c         who else listens on the address
 * incoming_cpu.c  whether this kernel steers among clones
 * affinity.c      a worker stays on its CPU, and what it starts does not
 * adopt.c         a worker takes the clone of its CPU
 * look.c          what a worker watches, and looking after it now and then
 * neighbours.c    a clone whose worker is gone, stopped or busy is tended by the others
 * accept.c        from the clone first, then from the application's listener
 * succession.c    a listener that goes to another program loses no connection on the way
 *
 * fast_epoll.c    Fast-Epoll: a connection enters the epoll only when it has to wait
 * flow_deliver.c  Receive Flow Deliver: an active connection has a source port of its CPU
 * waiting.c       what a thread does for these when it waits
 *
 * The rule that everything here obeys: when in doubt, do what libc would have done.
 */
#ifndef FSOCKET_H
#define FSOCKET_H

#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <signal.h>
#include <poll.h>
#include <time.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define likely(x) __builtin_expect(!!(x), 1)
/* Ours is loaded with the program, so its thread-local storage needs no call to be found. */
#define THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))

/* ---- real.c --------------------------------------------------------------------------------------------------- */

/*
 * The next definition of each call we interpose: libc's, or another preloaded library's. What every call reads, and what
 * a server calls most, shares the first cache line.
 */
struct real_calls {
	int (*close)(int);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	int (*accept)(int, struct sockaddr *, socklen_t *);
	int (*epoll_ctl)(int, int, int, struct epoll_event *);
	int (*epoll_wait)(int, struct epoll_event *, int, int);
	int (*socket)(int, int, int);
	int (*connect)(int, const struct sockaddr *, socklen_t);
	int (*setsockopt)(int, int, int, const void *, socklen_t);
	int (*bind)(int, const struct sockaddr *, socklen_t);
	int (*listen)(int, int);
	int (*getsockopt)(int, int, int, void *, socklen_t *);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	ssize_t (*recvmsg)(int, struct msghdr *, int);
	int (*epoll_create)(int);
	int (*epoll_create1)(int);
	int (*epoll_pwait)(int, struct epoll_event *, int, int, const sigset_t *);
	int (*epoll_pwait2)(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);
	int (*poll)(struct pollfd *, nfds_t, int);
	int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	int (*select)(int, fd_set *, fd_set *, fd_set *, struct timeval *);
	int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);
	int (*shutdown)(int, int);
	int (*dup)(int);
	int (*dup2)(int, int);
	int (*dup3)(int, int, int);
	int (*fcntl)(int, int, ...);
	int (*fcntl64)(int, int, ...);
	int (*ioctl)(int, unsigned long, ...);
	int (*execve)(const char *, char *const[], char *const[]);
	int (*close_range)(unsigned int, unsigned int, int);
	void (*closefrom)(int);
	int (*execveat)(int, const char *, char *const[], char *const[], int);
	int (*fexecve)(int, char *const[], char *const[]);
	int (*execvpe)(const char *, char *const[], char *const[]);
	int (*posix_spawn)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
	                   char *const[], char *const[]);
	int (*posix_spawnp)(pid_t *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *,
	                    char *const[], char *const[]);
	int (*system)(const char *);
	FILE *(*popen)(const char *, const char *);
	int (*pthread_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	int (*sched_getaffinity)(pid_t, size_t, cpu_set_t *);
	int (*pthread_getaffinity_np)(pthread_t, size_t, cpu_set_t *);
	int (*unshare)(int);
	int (*prctl)(int, ...);
} __attribute__((aligned(64)));
extern struct real_calls real;
void find_real_calls(void);
/* May we look at what the application points at, or is that for the kernel to refuse? In words of eight bytes. */
bool is_readable(const void *memory, size_t size);

/* Another library's constructor may call us before our own has run. */
static inline void need_real_calls(void)
{
	if (!likely(real.close))
		find_real_calls();
}

/* ---- log.c ----------------------------------------------------------------------------------------------------- */

void log_start(void);
/* One line on stderr, if that is what it was at the start and takes the line at once. errno is kept. */
void fsocket_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- settings.c ----------------------------------------------------------------------------------------------- */

#define MAX_ONLY_PORTS 16

struct settings {
	bool listen_table;
	bool fast_epoll;
	bool flow_deliver;
	enum { PIN_WHERE_FREE, PIN_ALWAYS, PIN_NEVER } pin;
	bool strict;
	bool verbose;
	size_t only_ports;
	uint16_t only_port[MAX_ONLY_PORTS];
};
extern struct settings settings;
void read_settings(void);
/* The settings' variables, and LD_PRELOAD, as they were when the program started: NAME=value, or NULL where unset. */
#define MAX_SETTINGS_VARIABLES 9
extern char *settings_assignments[MAX_SETTINGS_VARIABLES];

/* ---- page.c --------------------------------------------------------------------------------------------------- */

/*
 * One page for a server: the processes descended from the one that first listened. It is read from outside by
 * fastsocket/page.py through /proc/PID/mem; change both, and FSOCKET_PAGE_VERSION, together.
 */
#define FSOCKET_PAGE_NAME "fsocket"
#define FSOCKET_PAGE_MAGIC "FSOCKET"
#define FSOCKET_PAGE_VERSION 4

#define MAX_LISTENERS 64
/* A thread past these, on one CPU, adopts too, but nobody waits for it when the last of these stops listening. */
#define MAX_ADOPTERS 8

struct cpu_counters {
	_Atomic uint64_t accepted_local;     /* from the listener of the worker's own CPU */
	_Atomic uint64_t accepted_global;    /* from the application's own listener */
	_Atomic uint64_t accepted_neighbour; /* from the listener of a CPU whose worker did not tend it */
	_Atomic uint64_t adopted;            /* local listeners taken up by a worker */
	_Atomic uint64_t fallen_back;        /* workers that found none to take up */
	_Atomic uint64_t deferred;           /* accepted connections whose epoll registration was put off */
	_Atomic uint64_t registered;         /* those of them that had to be registered after all */
	_Atomic uint64_t delivered;          /* active connections with a source port of the CPU that opened them */
	_Atomic uint64_t undelivered;        /* those with a port of another CPU */
} __attribute__((aligned(64)));

/* Who accepts from the local listener of one CPU. */
struct seat {
	_Atomic uint64_t adopter[MAX_ADOPTERS]; /* process << 32 | thread; 0 or a dead one: a free place */
	_Atomic uint64_t tended_ms;             /* CLOCK_MONOTONIC when one of them last looked after it */
	_Atomic uint64_t accepted;              /* connections that they accepted from it */
	_Atomic uint32_t listening;
	_Atomic uint32_t failing; /* the last accept() found no descriptor or no memory for a connection */
	uint64_t cookie, inode;   /* of the clone: how another program finds it */
} __attribute__((aligned(64)));

struct shared_listener {
	_Atomic uint32_t in_use;
	_Atomic int32_t creator; /* the process that listened; 0 once it has let go */
	uint64_t cookie;         /* SO_COOKIE of the application's socket */
	struct sockaddr_storage address;
	char why_not[112];             /* why connections do not go to the workers' own CPUs; empty: they do */
	_Atomic uint32_t tickets;      /* adoptions by workers that nobody had pinned */
	_Atomic uint64_t withdrawn_ms; /* since when the clones are to receive nothing; 0: they receive */
	_Atomic uint64_t
		resume_ms; /* when what we got from another program may be shared out among our clones; 0: now */
	_Atomic uint32_t
		unattended; /* nobody accepts from any clone: new connections go to the application's listener */
	_Atomic uint64_t let_go_ms;
	_Atomic uint32_t refused;              /* enum refusal: why nobody is to adopt a clone any more */
	_Atomic uint64_t checked_ms;           /* when somebody last looked who else listens there */
	_Atomic uint64_t shard[CPU_SETSIZE];   /* cookies of the application's own listeners for it */
	_Atomic uint64_t waiting[CPU_SETSIZE]; /* workers that watch it without having adopted a clone */
	struct seat seat[CPU_SETSIZE];
};

struct page {
	char magic[8];
	uint32_t version;
	uint32_t cpus;
	uint32_t counters_offset, counters_stride;
	uint32_t listeners_offset, listeners_stride, listeners;
	uint32_t seats_offset, seats_stride, adopters; /* within a listener */
	_Atomic uint32_t departures; /* of workers that closed a listener: the others look at once what they left */
	_Atomic uint32_t arrivals;   /* of workers while another waited for one to share with: it looks at once, too */
	struct cpu_counters cpu[CPU_SETSIZE];
	struct shared_listener listener[MAX_LISTENERS];
};

/* Count the CPUs as long as there is a /sys to count them in: the application may go into a chroot. */
void page_start(void);
bool page_is_open(void);
/* Map the page if that has not happened yet in this process or an ancestor. False: no memory. */
bool page_open(void);
/* The process has no listener any more: its descriptor of the page goes, its mapping stays. */
void page_close(void);
void page_goes_along(bool goes);
/*
 * Become one server with another process: map its page, which has a place for this listener. False: there is no such
 * page, or we may not, or have our own already.
 */
bool page_join(pid_t pid, uint64_t cookie);
/* The process, or the nearest of its ancestors, that has our real, effective and saved user; 0: none has. */
pid_t page_process_of_our_user(pid_t pid);
struct shared_listener *page_find(uint64_t cookie);
/* A place in the page for a listener; NULL: there is none. */
struct shared_listener *page_place(void);
/* The counters of a CPU; a CPU out of range counts as CPU 0. Only after page_open() succeeded. */
struct cpu_counters *counters_of(int cpu);
struct cpu_counters *counters_here(void);
uint32_t page_departures(void);
void page_depart(void);
void page_arrive(void);
/* Changes with each departure and each arrival. */
uint32_t page_changes(void);

static inline void count(_Atomic uint64_t *counter)
{
	atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

uint64_t now_ms(void);
/* The calling thread, as an adopter. */
uint64_t myself(void);
bool anybody_at(const struct seat *seat);
/* Does one of its workers run, or wait for a CPU to run on? False: all sleep, are stopped, or it cannot be known. */
bool anybody_runs_at(const struct seat *seat);
/* Living workers that watch a listener, with a clone or without. */
size_t page_workers(const struct shared_listener *listener);
/* The calling thread watches a listener without a clone, or does so no longer. */
void page_waits(struct shared_listener *listener);
void page_waits_no_longer(struct shared_listener *listener);
void page_no_thread_waits(struct shared_listener *listener);
bool page_has_process(const struct shared_listener *listener, pid_t pid);
void page_add_shard(struct shared_listener *listener, uint64_t cookie);
/* Does the calling thread take a seat that is free? */
bool claim(struct seat *seat);
void enrol(struct seat *seat);
/* Is the calling thread one of the seat's adopters? */
bool is_enrolled(const struct seat *seat);
/* The calling thread accepts from this no longer. */
void leave(struct seat *seat);
/* The whole process does not. Says whether it did. */
bool leave_with_all_threads(struct seat *seat);

/* ---- descriptors.c -------------------------------------------------------------------------------------------- */

/* Descriptors past these are none of ours. */
#define MAX_FDS 65536

enum descriptor {
	UNKNOWN,   /* not looked at yet */
	PLAIN,     /* none of ours */
	OPENED,    /* a TCP socket that has just been made */
	LISTENER,  /* of the application; listener_by_fd[] says which */
	CLONE,     /* one of ours */
	WATCHING,  /* an epoll that has a listener in it, or an epoll that has one */
	GUARDED,   /* a TCP socket on which the application set something that no clone can get */
	FRESH,     /* just accepted, in no epoll */
	DELIVERED, /* one that is connected, or about to be, from a port of ours, and confined to it */
	DEFERRED,  /* the application believes that it is in its epoll; nothing has happened there yet */
	REPORTED,  /* the same, and the application has had an event */
	BUSY,      /* about to be registered by the thread that deferred it */
};
extern _Atomic uint8_t descriptors[MAX_FDS];
/* Past the highest that was ever anything but UNKNOWN. */
extern _Atomic uint32_t descriptors_end;
void extend_descriptors(uint32_t end);

/* The calling thread has a descriptor table of its own (unshare(2)): numbers mean something else there. */
extern __thread bool has_own_table __attribute__((tls_model("initial-exec")));
/* The process has installed a seccomp filter before it was accelerated: do nothing but what it does itself. */
extern atomic_bool is_inert;

static inline enum descriptor descriptor(int fd)
{
	if (!likely((unsigned int)fd < MAX_FDS && !has_own_table &&
	            !atomic_load_explicit(&is_inert, memory_order_relaxed)))
		return PLAIN;
	return atomic_load_explicit(&descriptors[fd], memory_order_acquire);
}

/* False: the number is not ours to write about. */
bool descriptor_is_replaced(int fd);

static inline void set_descriptor(int fd, enum descriptor kind)
{
	if ((unsigned int)fd >= MAX_FDS || has_own_table)
		return;
	if (kind != UNKNOWN && !likely((uint32_t)fd < atomic_load_explicit(&descriptors_end, memory_order_relaxed)))
		extend_descriptors((uint32_t)fd + 1);
	atomic_store_explicit(&descriptors[fd], (uint8_t)kind, memory_order_release);
}

/* A call has just returned this descriptor. */
static inline void new_descriptor(int fd, enum descriptor kind)
{
	if (likely(descriptor(fd) < LISTENER) || descriptor_is_replaced(fd))
		set_descriptor(fd, kind);
}

/* The application is about to close these, or has just closed them by dup2(): let go of what is ours among them. */
void descriptors_closing(unsigned int first, unsigned int last);
void known_descriptor_closing(int fd);

static inline void descriptor_closing(int fd)
{
	if (descriptor(fd) != UNKNOWN && (unsigned int)fd < MAX_FDS)
		known_descriptor_closing(fd);
}

/* ---- listeners.c ---------------------------------------------------------------------------------------------- */

struct clone {
	atomic_int fd;                     /* -1: none */
	atomic_int watchers;               /* epolls where this process watches it; 0: it does not */
	atomic_int neighbour_epfd;         /* where this process watches it though it is not its own; -1: nowhere */
	uint64_t cookie;                   /* is that descriptor still the socket we made? */
	_Atomic uint64_t pending_ms;       /* since when a connection has been seen to wait there; 0: none */
	_Atomic uint64_t pending_accepted; /* how many its own worker had accepted then */
};

/* An epoll in which the application has its listener. */
struct watch {
	bool used;
	bool inherited; /* the epoll is the parent's, too, which looks after it */
	int epfd, fd;
	int cpu;         /* whose clone is in the epoll, too; -1: none */
	uint64_t thread; /* that looks after it; 0: none has waited for this epoll yet */
	uint64_t looked_ms;
	struct epoll_event event;
};
#define MAX_WATCHES 256

/* Where a listener comes from. */
enum origin { LISTENED, INHERITED_BY_EXEC, RECEIVED };

struct listener {
	int fd;          /* one of the application's descriptors of it */
	int descriptors; /* how many there are in this process */
	int backlog;
	_Atomic uint32_t generation; /* tells a thread that its adoption was of an earlier user of this entry */
	pid_t creator;
	uint64_t cookie;
	struct sockaddr_storage address;
	enum origin origin;
	atomic_bool cloned;          /* has clones */
	atomic_bool blocks;          /* accept() on it does */
	atomic_int own_incoming_cpu; /* SO_INCOMING_CPU before the library wrote on it */
	atomic_bool own_reuseport;   /* the application set SO_REUSEPORT itself */
	atomic_bool sharded;         /* ... and opened several such listeners: they are its own local listeners */
	atomic_bool guarded;         /* the application set something that no clone can get */
	atomic_bool signals;         /* O_ASYNC */
	atomic_bool covered;         /* every CPU that has a clone has one that listens */
	const char *why_not;         /* why it has neither clones nor shards */
	cpu_set_t cpus;              /* that have a clone */
	atomic_int cpus_end;         /* past the highest of them */
	atomic_int neighbours;       /* clones watched here that are not our own */
	atomic_int watched;          /* the sum of the clones' watchers */
	struct shared_listener *shared;
	struct watch watch[MAX_WATCHES];
	struct clone clone[CPU_SETSIZE];
};

#define for_each_clone(index, l)                                          \
	for (int index = 0; index < atomic_load(&(l)->cpus_end); index++) \
		if (atomic_load(&(l)->clone[index].fd) >= 0)

extern struct listener listeners[MAX_LISTENERS];
extern _Atomic(struct listener *) listener_by_fd[MAX_FDS];

static inline struct listener *find_listener(int fd)
{
	return !likely(descriptor(fd) == LISTENER) ? NULL
	                                           : atomic_load_explicit(&listener_by_fd[fd], memory_order_acquire);
}

/* Cold paths only: no signal handler of ours to wait for itself, no cancellation while we hold it. */
struct held {
	sigset_t signals;
	int cancel_state;
	int saved_errno;
};
void lock_tables(struct held *held);
void unlock_tables(const struct held *held);
/* False in the child of a vfork(), which borrows its parent's memory but not its descriptors. */
bool tables_are_ours(void);
/* Was this process made without the handlers of fork()? Then what the tables say of threads is the parent's. */
void notice_copy(void);
void listeners_start(void);

/* False: the listener cannot be accelerated, and the application is not to run without. */
bool listeners_listen(int fd, int backlog);
/* What a descriptor is that we have not seen being made. */
struct listener *listeners_discover(int fd, enum origin origin);
void listeners_inherit(void);
void listeners_duplicated(int from, int to);
/* The application has changed the flags of a descriptor. */
void listeners_flags_changed(int fd);
/* With the tables locked: one descriptor of a listener is closed. */
void listeners_close(int fd);

/* ---- options.c ------------------------------------------------------------------------------------------------- */

/* Give a socket the options of another one, as far as they can be given. False: some could not. */
bool options_copy(int from, int to);
/* The same, and is everything equal then? */
bool options_make_equal(int from, int to);
/* The same for one option. */
bool option_follows(int from, int to, int level, int name);
bool option_can_be_copied(int fd, int level, int name);
bool has_filter(int fd);

/* ---- affinity.c ------------------------------------------------------------------------------------------------ */

void affinity_start(void);
bool is_only_thread(void);
void affinity_seccomp_installed(void);
bool seccomp_at_start(void);
bool seccomp_was_installed(void);
bool affinity_may_pin(void);
/* Pin the calling thread. */
bool affinity_pin(int cpu);
void affinity_renew(int cpu, const cpu_set_t *present);
/* While the calling thread makes a thread or a process: between these two it has its own affinity. */
bool affinity_lift(void);
void affinity_put_back(bool lifted);
void affinity_forget(void);
/* Is the calling thread pinned by us? Then *ret_own is what the application gave it. */
bool affinity_is_hidden(cpu_set_t *ret_own);
bool affinity_of_this_thread(cpu_set_t *ret_cpus);
/* The one CPU of a set that has just one, or -1. */
int only_cpu(const cpu_set_t *allowed);
bool affinity_own(cpu_set_t *ret_cpus);

/* ---- clone.c, incoming_cpu.c ---------------------------------------------------------------------------------- */

bool set_int(int fd, int level, int name, int value);
int get_int(int fd, int level, int name, int missing);
uint64_t cookie_of(int fd);
/* The same with a number that the application is unlikely to have plans for; takes -1 as well. */
int out_of_the_way(int fd);
bool kernel_honours_incoming_cpu(void);

/* All of these want the tables locked, but for clones_shutdown() and clones_setsockopt(), which lock them. */
/* Returns NULL, or the step that did not work. */
const char *clones_make(struct listener *l);
bool clone_bind(struct listener *l, int cpu);
bool clone_add(struct listener *l, int cpu, int fd);
void clone_forget(struct listener *l, int cpu);
void clones_close(struct listener *l);
void clones_listen_again(struct listener *l, int backlog);
void clones_shutdown(struct listener *l, int how);
void clones_setsockopt(struct listener *l, int level, int name, const void *value, socklen_t size);
/* The clone of a CPU, or -1 where it is gone. */
int clone_of(const struct listener *l, int cpu);
bool clone_marks_cpu(int fd, int cpu);
bool clone_listens(const struct listener *l, int cpu);
void clone_stop_listening(struct listener *l, int cpu);
bool clone_watch(struct listener *l, int cpu, int epfd, struct epoll_event event);
void clone_unwatch(struct listener *l, int cpu, int epfd);
void clone_is_no_neighbour(struct listener *l, int cpu, int epfd);

/* ---- group.c --------------------------------------------------------------------------------------------------- */

/* Has this server opened every listener of the address? */
bool group_is_ours(const struct listener *l);
void group_check(struct listener *l, uint64_t now);

/* ---- adopt.c --------------------------------------------------------------------------------------------------- */

#define TEXT_OPTION "it has an option that no clone of it can get"
#define TEXT_NEIGHBOUR "another program listens on its address, too"
#define TEXT_HANDED_OVER "it was handed over to another program"
#define TEXT_TOO_MANY "the server has more than 64 listeners"

/* The global listener has its turn after this many accepts, so that a busy local one cannot starve it. */
#define ACCEPTS_PER_GLOBAL_TURN 32

struct adoption {
	uint32_t generation;
	int cpu;
	unsigned int until_global_turn;
};
extern __thread struct adoption adoptions[MAX_LISTENERS] __attribute__((tls_model("initial-exec")));

/* What the calling thread has adopted of this listener, or NULL. */
struct adoption *adoption_of(const struct listener *l);
void adoptions_forget(void);
/* With the tables locked: the calling thread adopts a clone, or says why not. */
void adopt(struct listener *l, struct watch *watch);
void reconsider(struct listener *l, struct watch *watch);
void give_up(struct listener *l, struct watch *watch);
/* No thread of this process accepts any longer. */
void adopters_leave(struct listener *l);
void clone_is_closed(int fd);

/* ---- look.c ---------------------------------------------------------------------------------------------------- */

/* epoll_ctl() on a listener. Locks the tables. */
void watch_changed(struct listener *l, int epfd, int op, int fd, const struct epoll_event *event);
void epoll_is_closed(int epfd);
bool any_adopted_here(void);
/*
 * The calling thread waits for this epoll: look after what it watches. idle: it has waited in vain for some time. Ms until
 * the next look.
 */
int look_after(int epfd, bool idle);

/* ---- accept.c -------------------------------------------------------------------------------------------------- */

int accept_any(struct listener *l, int fd, struct sockaddr *addr, socklen_t *len, int flags);

/* ---- neighbours.c --------------------------------------------------------------------------------------------- */

/* Does this clone's own worker not accept from it? */
bool is_neglected(const struct listener *l, int cpu);
/* With the tables locked. Says whether to look again soon. */
bool neighbours_tend(struct listener *l, const struct watch *watch, bool idle, uint64_t now);
bool neighbours_have_something(struct listener *l);

/* ---- succession.c --------------------------------------------------------------------------------------------- */

/* The application has passed descriptors on, or has got some. */
void succession_sent(const struct msghdr *message);
void succession_received(const struct msghdr *message);
/* How many variables a program that the application starts lacks to go on as we do, and putting them there. */
size_t succession_lacks(char *const environment[]);
void succession_extend(char *extended[], char *const environment[]);

/* Against other processes that get to know this listener now. */
int succession_lock(uint64_t cookie);
void succession_unlock(int lock);
/* With the tables locked. Was this listener cloned by another process that still runs? */
bool succession_is_marked(int fd);
/* Write on a listener whose it is. */
void succession_mark(const struct listener *l);
/* Become one server with the process that cloned this listener, and get its clones. */
bool succession_take_over(struct listener *l);
/* Nobody adopts a clone any more, or somebody does again. */
void succession_unattended(struct listener *l);
void succession_attended(const struct listener *l);
/* What cannot be taken over shall be emptied before ours receive anything. */
void succession_waits(struct listener *l);
/* Returns whether the listener has a successor elsewhere: nobody is to adopt a clone of ours. */
bool succession_tend(struct listener *l, uint64_t now);
bool succession_withdrawn(const struct listener *l);

/* Why no worker of the server is to have a clone any more. */
enum refusal { NOT_REFUSED, REFUSED_BY_OPTION, REFUSED_BY_NEIGHBOUR };
enum refusal succession_refusal(const struct listener *l);
void succession_refuse(struct listener *l, enum refusal why);
void succession_allow(struct listener *l, enum refusal why);
/* The process is about to become another program, or has not become one. */
void succession_executes(bool begins);

/* ---- fast_epoll.c --------------------------------------------------------------------------------------------- */

/* Only where settings.fast_epoll. Does nothing remain to be done for this epoll_ctl()? */
bool fast_epoll_defers(int epfd, int op, int fd, const struct epoll_event *event);
/* Events of deferred connections, as many as fit; what has had its event gets registered. */
int fast_epoll_collect(int epfd, struct epoll_event *events, int room);
/* The calling thread waits for something else, perhaps for epolls among these. */
void fast_epoll_polls(const struct pollfd *fds, nfds_t n);
/* The application does something with this descriptor that its epoll should know before. */
void fast_epoll_settle(int fd);
void fast_epoll_created(int epfd);
/* From now on others may wait on this, should it be an epoll. */
void fast_epoll_shared(int fd);
void fast_epoll_closing(int fd);
/* An epoll is closed, perhaps: what was put off for it is in no epoll. */
void fast_epoll_epoll_closing(int epfd);
void fast_epoll_before_fork(void);
void fast_epoll_forget_threads(void);

/* ---- flow_deliver.c ------------------------------------------------------------------------------------------- */

/* The lowest bits of a port that tell its CPU: as many as it takes to number them all. */
static inline unsigned int port_mask(unsigned int cpus)
{
	unsigned int size = 1;

	while (size < cpus)
		size *= 2;
	return size - 1;
}

/*
 * The CPU that a port belongs to, as Fastsocket's hash has it: port & (roundup_pow2(cpus) - 1). Where the number of
 * CPUs is no power of two, that leaves ports without a CPU: they are spare ones of the first CPUs.
 */
static inline unsigned int core_of_port(uint16_t port, unsigned int cpus)
{
	unsigned int bits = port & port_mask(cpus);

	return bits < cpus ? bits : bits - cpus;
}

/* Only where settings.flow_deliver, and on descriptors that are UNKNOWN, OPENED or DELIVERED. */
int flow_deliver_connect(int fd, const struct sockaddr *addr, socklen_t len);
/* It was disconnected, and is about to get a port by another call than connect(). */
void flow_deliver_any_port(int fd);
int flow_deliver_bind(int fd, const struct sockaddr *addr, socklen_t len);
/* A range that the application did not set, and that it is not to see. */
bool flow_deliver_hides(int fd, int level, int name);
/* The application has set an option: it may have been the range. */
void flow_deliver_setsockopt(int fd, int level, int name);
/* The socket is to have another name, or another owner, of which we may see nothing. */
void flow_deliver_shared(int fd);
void flow_deliver_start(void);
void flow_deliver_after_fork(void);

/* ---- waiting.c ------------------------------------------------------------------------------------------------ */

/* One of epoll_wait(), epoll_pwait() and epoll_pwait2(): whichever has what it needs. */
struct wait {
	int epfd;
	struct epoll_event *events;
	int room;
	bool has_mask;
	const sigset_t *mask;
	bool in_ns;
	int timeout_ms;
	const struct timespec *timeout;
};
int wait_for_events(struct wait *wait);
bool is_time(const struct timespec *time);
/* Is there a listener among these, or an epoll that has one? */
bool polls_a_listener(const struct pollfd *fds, nfds_t n);
int poll_in_slices(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
bool is_set(int n, const fd_set *set);
bool selects_a_listener(int n, const fd_set *in);
int select_in_slices(int n, fd_set *in, fd_set *out, fd_set *except, const struct timespec *timeout,
                     const sigset_t *mask);

#endif
