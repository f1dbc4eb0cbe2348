// SPDX-License-Identifier: MIT
/*
 * What happened and who serves what, in a memfd: shared by a server's whole process tree, named in /proc/PID/maps so
 * that a reader finds it, and gone with the last process, however that one ends. No lock guards it, because a worker
 * may be stopped or killed at any instruction: every field is written by one process or changed atomically.
 *
 * A worker that has dropped its privileges still writes here, and its master reads. So the file is sealed against
 * shrinking (memfd_create(2)), and no size, offset or index is ever taken from it: the header is for other programs.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

#define PAGE_BYTES ((unsigned long)sysconf(_SC_PAGESIZE))
/* What /proc/PID/fd says of a page. */
#define MEMFD "/memfd:" FSOCKET_PAGE_NAME " "
/* From a worker up to its master. */
#define MAX_GENERATIONS 3
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct page *page;
static int page_fd = -1; /* open while the process has listeners, for whoever succeeds it */
static ino_t page_inode;

static long cpus;

static void describe(struct page *new)
{
	memcpy(new->magic, FSOCKET_PAGE_MAGIC, sizeof(new->magic));
	new->version = FSOCKET_PAGE_VERSION;
	new->cpus = (uint32_t)cpus;
	new->counters_offset = offsetof(struct page, cpu);
	new->counters_stride = sizeof(struct cpu_counters);
	new->listeners_offset = offsetof(struct page, listener);
	new->listeners_stride = sizeof(struct shared_listener);
	new->listeners = MAX_LISTENERS;
	new->seats_offset = offsetof(struct shared_listener, seat);
	new->seats_stride = sizeof(struct seat);
	new->adopters = MAX_ADOPTERS;
}

static struct page *map_page(int fd)
{
	void *map = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return map == MAP_FAILED ? NULL : map;
}

static void use_page(struct page *new, int fd)
{
	struct stat status = { 0 };

	page = new;
	page_fd = fd;
	fstat(fd, &status);
	page_inode = status.st_ino;
}

/* The kernel lets only some do this; for the others the page stays without a descriptor. */
static void reopen(void)
{
	char path[96];

	if (page_fd >= 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)page,
	         (unsigned long)page + (sizeof(*page) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
	page_fd = out_of_the_way(open(path, O_RDWR | O_CLOEXEC));
}

void page_close(void)
{
	struct stat status;

	/* The application may have closed it, and have got the number for something else. */
	if (page_fd >= 0 && !fstat(page_fd, &status) && status.st_ino == page_inode)
		real.close(page_fd);
	page_fd = -1;
}

/* Across execve(), or not. */
void page_goes_along(bool goes)
{
	if (goes)
		reopen();
	if (page_fd >= 0)
		real.fcntl(page_fd, F_SETFD, goes ? 0 : FD_CLOEXEC);
}

bool page_is_open(void)
{
	return page;
}

void page_start(void)
{
	cpus = sysconf(_SC_NPROCESSORS_CONF);
	if (cpus > CPU_SETSIZE)
		cpus = CPU_SETSIZE;
}

/* The kernel sends SIGXFSZ to a process that makes a file longer than its limit: setrlimit(2). */
static bool may_be_so_long(size_t bytes)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_FSIZE, &limit) && (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= bytes);
}

static bool make_sealed(int fd, size_t bytes)
{
	return may_be_so_long(bytes) && !ftruncate(fd, (off_t)bytes) && !real.fcntl(fd, F_ADD_SEALS, SEALS);
}

bool page_open(void)
{
	struct page *new = NULL;
	int fd;

	if (page) {
		reopen();
		return true;
	}
	fd = out_of_the_way(memfd_create(FSOCKET_PAGE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING));
	if (fd < 0)
		return false;
	if (!cpus)
		page_start();
	if (cpus > 0 && make_sealed(fd, sizeof(*new)))
		new = map_page(fd);
	if (!new) {
		real.close(fd);
		return false;
	}
	describe(new);
	use_page(new, fd);
	return true;
}

static struct shared_listener *place_of(struct page *in, uint64_t cookie)
{
	for (size_t i = 0; in && i < MAX_LISTENERS; i++)
		if (atomic_load(&in->listener[i].in_use) && in->listener[i].cookie == cookie)
			return &in->listener[i];
	return NULL;
}

struct shared_listener *page_find(uint64_t cookie)
{
	return place_of(page, cookie);
}

static bool is_compatible(const struct page *other)
{
	return memcmp(other->magic, FSOCKET_PAGE_MAGIC, sizeof(other->magic)) == 0 &&
	       other->version == FSOCKET_PAGE_VERSION;
}

/* Memory of our own user, which cannot get shorter while it is mapped. */
static bool can_be_trusted(int fd)
{
	struct stat status;
	int seals = real.fcntl(fd, F_GET_SEALS);

	return seals >= 0 && (seals & SEALS) == SEALS && !fstat(fd, &status) && status.st_uid == geteuid() &&
	       status.st_size == sizeof(struct page);
}

/* Takes the descriptor. Only a page that has a place for this listener is worth sharing. */
static bool join(int fd, uint64_t cookie)
{
	struct page *other = fd >= 0 && can_be_trusted(fd) ? map_page(fd) : NULL;

	if (other && is_compatible(other) && place_of(other, cookie)) {
		use_page(other, out_of_the_way(fd));
		return true;
	}
	if (other)
		munmap(other, sizeof(*other));
	if (fd >= 0)
		real.close(fd);
	return false;
}

struct process {
	unsigned int parent, uid[3]; /* real, effective, saved */
};

/* proc(5), /proc/PID/status, where the parent stands above the users. */
static bool look_up(pid_t pid, struct process *ret_process)
{
	char path[64], line[128];
	bool found = false;
	FILE *status;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	status = fopen(path, "re");
	while (status && !found && fgets(line, sizeof(line), status)) {
		sscanf(line, "PPid: %u", &ret_process->parent);
		found = sscanf(line, "Uid: %u %u %u", &ret_process->uid[0], &ret_process->uid[1],
		               &ret_process->uid[2]) == 3;
	}
	if (status)
		fclose(status);
	return found;
}

/*
 * A process of another user may have written itself on the listener: what it offers is never taken. But it may be a
 * worker that has dropped its privileges, and its master has what the worker has.
 */
pid_t page_process_of_our_user(pid_t pid)
{
	uid_t own[3];

	if (getresuid(&own[0], &own[1], &own[2]))
		return 0;
	for (int generation = 0; pid > 1 && generation < MAX_GENERATIONS; generation++) {
		struct process process = { 0 };

		if (!look_up(pid, &process))
			return 0;
		if (process.uid[0] == own[0] && process.uid[1] == own[1] && process.uid[2] == own[2])
			return pid;
		pid = (pid_t)process.parent;
	}
	return 0;
}

bool page_join(pid_t pid, uint64_t cookie)
{
	char path[64], target[64];
	ssize_t length;
	DIR *directory;
	struct dirent *entry;
	bool joined = false;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	directory = page ? NULL : opendir(path);
	while (directory && !joined && (entry = readdir(directory))) {
		length = readlinkat(dirfd(directory), entry->d_name, target, sizeof(target) - 1);
		target[length > 0 ? length : 0] = '\0';
		if (strncmp(target, MEMFD, strlen(MEMFD)) == 0)
			joined = join(openat(dirfd(directory), entry->d_name, O_RDWR | O_CLOEXEC), cookie);
	}
	if (directory)
		closedir(directory);
	return joined;
}

struct cpu_counters *counters_of(int cpu)
{
	return &page->cpu[cpu >= 0 && cpu < cpus ? cpu : 0];
}

struct cpu_counters *counters_here(void)
{
	return counters_of(sched_getcpu());
}

uint32_t page_departures(void)
{
	return atomic_load_explicit(&page->departures, memory_order_relaxed);
}

void page_depart(void)
{
	atomic_fetch_add(&page->departures, 1);
}

void page_arrive(void)
{
	atomic_fetch_add(&page->arrivals, 1);
}

uint32_t page_changes(void)
{
	return page_departures() + atomic_load_explicit(&page->arrivals, memory_order_relaxed);
}

uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* ---- who accepts: processes and threads that come, go, and die ------------------------------------------------- */

uint64_t myself(void)
{
	return (uint64_t)getpid() << 32 | (uint64_t)syscall(SYS_gettid);
}

static bool is_alive(uint64_t adopter)
{
	int saved_errno = errno;
	bool alive;

	if (!adopter || seccomp_was_installed()) /* the filter may forbid the question */
		return adopter;
	alive = syscall(SYS_tgkill, adopter >> 32, adopter & UINT32_MAX, 0) == 0 || errno != ESRCH;
	errno = saved_errno;
	return alive;
}

bool anybody_at(const struct seat *seat)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		if (is_alive(atomic_load(&seat->adopter[i])))
			return true;
	return false;
}

/* proc(5), /proc/PID/stat: the state comes after the name, which is in parentheses and may hold any character. */
static bool is_running(uint64_t worker)
{
	char path[64], text[128];
	const char *name_end;
	ssize_t length;
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/task/%u/stat", (unsigned int)(worker >> 32), (unsigned int)worker);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	length = read(fd, text, sizeof(text) - 1);
	real.close(fd);
	text[length > 0 ? length : 0] = '\0';
	name_end = strrchr(text, ')');
	return name_end && strncmp(name_end, ") R", 3) == 0;
}

bool anybody_runs_at(const struct seat *seat)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++) {
		uint64_t worker = atomic_load(&seat->adopter[i]);

		if (worker && is_running(worker))
			return true;
	}
	return false;
}

static size_t alive_among(const _Atomic uint64_t *workers, size_t n)
{
	size_t alive = 0;

	for (size_t i = 0; i < n; i++)
		alive += is_alive(atomic_load_explicit(&workers[i], memory_order_relaxed));
	return alive;
}

size_t page_workers(const struct shared_listener *listener)
{
	size_t workers = alive_among(listener->waiting, COUNT(listener->waiting));

	for (long cpu = 0; cpu < cpus; cpu++)
		workers += alive_among(listener->seat[cpu].adopter, MAX_ADOPTERS);
	return workers;
}

static bool is_among(const _Atomic uint64_t *workers, size_t n, pid_t pid)
{
	for (size_t i = 0; i < n; i++)
		if (atomic_load_explicit(&workers[i], memory_order_relaxed) >> 32 == (uint64_t)pid)
			return true;
	return false;
}

bool page_has_process(const struct shared_listener *listener, pid_t pid)
{
	bool has = atomic_load(&listener->creator) == pid || is_among(listener->waiting, COUNT(listener->waiting), pid);

	for (long cpu = 0; cpu < cpus && !has; cpu++)
		has = is_among(listener->seat[cpu].adopter, MAX_ADOPTERS, pid);
	return has;
}

static bool sit_down(_Atomic uint64_t *place)
{
	uint64_t present = atomic_load(place);

	return !is_alive(present) && atomic_compare_exchange_strong(place, &present, myself());
}

/* Two that both find the seat free meet at its first place, and one of them gets it. */
bool claim(struct seat *seat)
{
	return !anybody_at(seat) && sit_down(&seat->adopter[0]);
}

static bool sits_among(const _Atomic uint64_t *places, size_t n, uint64_t worker)
{
	for (size_t i = 0; i < n; i++)
		if (atomic_load(&places[i]) == worker)
			return true;
	return false;
}

static void sit_among(_Atomic uint64_t *places, size_t n)
{
	if (sits_among(places, n, myself()))
		return;
	for (size_t i = 0; i < n; i++)
		if (sit_down(&places[i]))
			return;
}

void enrol(struct seat *seat)
{
	sit_among(seat->adopter, MAX_ADOPTERS);
}

bool is_enrolled(const struct seat *seat)
{
	return sits_among(seat->adopter, MAX_ADOPTERS, myself());
}

void page_waits(struct shared_listener *listener)
{
	sit_among(listener->waiting, COUNT(listener->waiting));
}

static bool stand_up(_Atomic uint64_t *place, uint64_t present)
{
	return atomic_compare_exchange_strong(place, &present, 0);
}

static void stand_up_everywhere(_Atomic uint64_t *places, size_t n)
{
	uint64_t me = myself();

	for (size_t i = 0; i < n; i++)
		stand_up(&places[i], me);
}

void leave(struct seat *seat)
{
	stand_up_everywhere(seat->adopter, MAX_ADOPTERS);
}

void page_waits_no_longer(struct shared_listener *listener)
{
	stand_up_everywhere(listener->waiting, COUNT(listener->waiting));
}

static bool all_threads_stand_up(_Atomic uint64_t *places, size_t n)
{
	uint64_t process = (uint64_t)getpid();
	bool was_here = false;

	for (size_t i = 0; i < n; i++) {
		uint64_t adopter = atomic_load(&places[i]);

		if (adopter >> 32 == process && stand_up(&places[i], adopter))
			was_here = true;
	}
	return was_here;
}

bool leave_with_all_threads(struct seat *seat)
{
	return all_threads_stand_up(seat->adopter, MAX_ADOPTERS);
}

void page_no_thread_waits(struct shared_listener *listener)
{
	all_threads_stand_up(listener->waiting, COUNT(listener->waiting));
}

void page_add_shard(struct shared_listener *listener, uint64_t cookie)
{
	for (size_t i = 0; i < COUNT(listener->shard); i++) {
		uint64_t none = 0;

		if (atomic_compare_exchange_strong(&listener->shard[i], &none, cookie) || none == cookie)
			return;
	}
}

/* ---- places in the page --------------------------------------------------------------------------------------- */

static bool is_abandoned(const struct shared_listener *listener)
{
	uint64_t creator = (uint64_t)atomic_load(&listener->creator);

	return !is_alive(creator << 32 | creator) && page_workers(listener) == 0;
}

static struct shared_listener *take_place(struct shared_listener *listener, uint32_t expected)
{
	if (!atomic_compare_exchange_strong(&listener->in_use, &expected, expected + 1))
		return NULL;
	atomic_store(&listener->creator, getpid());
	atomic_store(&listener->tickets, 0);
	atomic_store(&listener->withdrawn_ms, 0);
	atomic_store(&listener->resume_ms, 0);
	atomic_store(&listener->unattended, 0);
	atomic_store(&listener->let_go_ms, 0);
	listener->why_not[0] = '\0';
	atomic_store(&listener->refused, 0);
	memset(listener->shard, 0, sizeof(listener->shard));
	memset(listener->waiting, 0, sizeof(listener->waiting));
	memset(listener->seat, 0, (size_t)cpus * sizeof(listener->seat[0]));
	return listener;
}

static struct shared_listener *longest_abandoned(void)
{
	struct shared_listener *longest = NULL;

	for (size_t i = 0; i < MAX_LISTENERS; i++) {
		struct shared_listener *listener = &page->listener[i];

		if ((!longest || atomic_load(&listener->let_go_ms) < atomic_load(&longest->let_go_ms)) &&
		    is_abandoned(listener))
			longest = listener;
	}
	return longest;
}

/*
 * in_use counts how often a place was taken, so that only one of two takers gets it. A worker may know a listener that
 * its creator has let go, and not have adopted it yet: so places are used again as late as possible.
 */
struct shared_listener *page_place(void)
{
	struct shared_listener *taken = NULL, *longest;

	for (size_t i = 0; i < MAX_LISTENERS && !taken; i++)
		if (!atomic_load(&page->listener[i].in_use))
			taken = take_place(&page->listener[i], 0);
	longest = taken ? NULL : longest_abandoned();
	return longest ? take_place(longest, atomic_load(&longest->in_use)) : taken;
}
