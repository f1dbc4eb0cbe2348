// SPDX-License-Identifier: MIT
/*
 * What happened and who serves what, in a memfd: shared by a server's whole process tree, named in /proc/PID/maps so
 * that a reader finds it, and gone with the last process, however that one ends. No lock guards it, because a worker
 * may be stopped or killed at any instruction: every field is written by one process or changed atomically.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fsocket.h"

#define PAGE_BYTES ((unsigned long)sysconf(_SC_PAGESIZE))
/* What /proc/PID/fd says of a page. */
#define MEMFD "/memfd:" FSOCKET_PAGE_NAME " "

static struct page *page;
static int page_fd = -1; /* open while the process has listeners, for whoever succeeds it */
static ino_t page_inode;

static void describe(struct page *new, long cpus)
{
	memcpy(new->magic, FSOCKET_PAGE_MAGIC, sizeof(new->magic));
	new->version = FSOCKET_PAGE_VERSION;
	new->cpus = (uint32_t)(cpus < CPU_SETSIZE ? cpus : CPU_SETSIZE);
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

bool page_is_open(void)
{
	return page;
}

static long cpus;

void page_start(void)
{
	cpus = sysconf(_SC_NPROCESSORS_CONF);
}

bool page_open(void)
{
	struct page *new = NULL;
	int fd;

	if (page) {
		reopen();
		return true;
	}
	fd = out_of_the_way(memfd_create(FSOCKET_PAGE_NAME, MFD_CLOEXEC));
	if (fd < 0)
		return false;
	if (!cpus)
		page_start();
	if (cpus > 0 && !ftruncate(fd, sizeof(*new)))
		new = map_page(fd);
	if (!new) {
		real.close(fd);
		return false;
	}
	describe(new, cpus);
	use_page(new, fd);
	return true;
}

static bool is_compatible(const struct page *other)
{
	return memcmp(other->magic, FSOCKET_PAGE_MAGIC, sizeof(other->magic)) == 0 &&
	       other->version == FSOCKET_PAGE_VERSION && other->listeners_stride == sizeof(struct shared_listener);
}

static bool join(int fd)
{
	struct stat status;
	struct page *other = NULL;

	if (fd >= 0 && !fstat(fd, &status) && status.st_size == sizeof(*other))
		other = map_page(fd);
	if (other && is_compatible(other)) {
		use_page(other, out_of_the_way(fd));
		return true;
	}
	if (other)
		munmap(other, sizeof(*other));
	if (fd >= 0)
		real.close(fd);
	return false;
}

bool page_join(pid_t pid)
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
			joined = join(openat(dirfd(directory), entry->d_name, O_RDWR | O_CLOEXEC));
	}
	if (directory)
		closedir(directory);
	return joined;
}

struct shared_listener *page_find(uint64_t cookie)
{
	for (size_t i = 0; page && i < MAX_LISTENERS; i++)
		if (atomic_load(&page->listener[i].in_use) && page->listener[i].cookie == cookie)
			return &page->listener[i];
	return NULL;
}

struct cpu_counters *counters_of(int cpu)
{
	return &page->cpu[cpu >= 0 && (uint32_t)cpu < page->cpus ? cpu : 0];
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
	bool alive = adopter && (syscall(SYS_tgkill, adopter >> 32, adopter & UINT32_MAX, 0) == 0 || errno != ESRCH);

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

bool anybody_else_at(const struct seat *seat)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		if (atomic_load(&seat->adopter[i]) != myself() && is_alive(atomic_load(&seat->adopter[i])))
			return true;
	return false;
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

void enrol(struct seat *seat)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		if (atomic_load(&seat->adopter[i]) == myself())
			return;
	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		if (sit_down(&seat->adopter[i]))
			return;
}

static bool stand_up(_Atomic uint64_t *place, uint64_t present)
{
	return atomic_compare_exchange_strong(place, &present, 0);
}

void leave(struct seat *seat)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		stand_up(&seat->adopter[i], myself());
}

bool leave_with_all_threads(struct seat *seat)
{
	bool was_here = false;

	for (size_t i = 0; i < MAX_ADOPTERS; i++) {
		uint64_t adopter = atomic_load(&seat->adopter[i]);

		if (adopter >> 32 == (uint64_t)getpid() && stand_up(&seat->adopter[i], adopter))
			was_here = true;
	}
	return was_here;
}

/* ---- places in the page --------------------------------------------------------------------------------------- */

static bool is_abandoned(const struct shared_listener *listener)
{
	uint64_t creator = (uint64_t)atomic_load(&listener->creator);

	if (is_alive(creator << 32 | creator) || anybody_at(&listener->waiting))
		return false;
	for (uint32_t cpu = 0; cpu < page->cpus; cpu++)
		if (anybody_at(&listener->seat[cpu]))
			return false;
	return true;
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
	memset(&listener->waiting, 0, sizeof(listener->waiting));
	memset(listener->seat, 0, page->cpus * sizeof(listener->seat[0]));
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
