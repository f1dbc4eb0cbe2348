// SPDX-License-Identifier: MIT
/*
 * The memory is a memfd: the server's whole process tree shares it, a reader finds it by its name in /proc/PID/maps,
 * and it is gone with the last process. No lock guards it, because a worker may be stopped or killed at any
 * instruction: one process writes each field, or it is changed atomically.
 *
 * A worker that has dropped its privileges still writes here, and its master reads. So the file is sealed against
 * shrinking (memfd_create(2)), and the library never takes a size, an offset or an index from it: the header is for
 * other programs.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process.h"
#include "real.h"
#include "shared.h"
#include "sockopt.h"

#define PAGE_BYTES ((unsigned long)sysconf(_SC_PAGESIZE))
/* How the target of a link in /proc/PID/fd begins. */
#define MEMFD "/memfd:" FSOCKET_SHARED_NAME " "
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static struct shared_memory *memory;
bool shared_is_mapped;
static int memory_fd = -1; /* open while the process has listeners, for a successor */
static ino_t memory_inode;

static long cpus;

static void describe(struct shared_memory *new)
{
	memcpy(new->magic, FSOCKET_SHARED_MAGIC, sizeof(new->magic));
	new->version = FSOCKET_SHARED_VERSION;
	new->cpus = (uint32_t)cpus;
	new->counters_offset = offsetof(struct shared_memory, cpu);
	new->counters_stride = sizeof(struct cpu_counters);
	new->listeners_offset = offsetof(struct shared_memory, listener);
	new->listeners_stride = sizeof(struct shared_listener);
	new->listeners = MAX_LISTENERS;
	new->seats_offset = offsetof(struct shared_listener, seat);
	new->seats_stride = sizeof(struct seat);
	new->adopters = MAX_ADOPTERS;
}

static struct shared_memory *map_memory(int fd)
{
	void *map = mmap(NULL, sizeof(struct shared_memory), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return map == MAP_FAILED ? NULL : map;
}

static void use_memory(struct shared_memory *new, int fd)
{
	struct stat status = { 0 };

	memory = new;
	shared_is_mapped = true;
	memory_fd = fd;
	fstat(fd, &status);
	memory_inode = status.st_ino;
}

void shared_reopen(void)
{
	char path[96];

	if (memory_fd >= 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", (unsigned long)memory,
	         (unsigned long)memory + (sizeof(*memory) + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES);
	memory_fd = out_of_the_way(open(path, O_RDWR | O_CLOEXEC));
}

void shared_close(void)
{
	struct stat status;

	/* The application may have closed the descriptor, and the number may be another file's now. */
	if (memory_fd >= 0 && !fstat(memory_fd, &status) && status.st_ino == memory_inode)
		real.close(memory_fd);
	memory_fd = -1;
}

void shared_goes_along(bool goes)
{
	if (memory_fd >= 0)
		real.fcntl(memory_fd, F_SETFD, goes ? 0 : FD_CLOEXEC);
}

void shared_start(void)
{
	cpus = sysconf(_SC_NPROCESSORS_CONF);
	if ((unsigned long)cpus > CPU_SETSIZE)
		cpus = CPU_SETSIZE;
}

long shared_cpus(void)
{
	return cpus;
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

bool shared_open(void)
{
	struct shared_memory *new = NULL;
	int fd;

	if (memory) {
		shared_reopen();
		return true;
	}
	fd = out_of_the_way(memfd_create(FSOCKET_SHARED_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING));
	if (fd < 0)
		return false;
	if (!cpus)
		shared_start();
	if (make_sealed(fd, sizeof(*new)))
		new = map_memory(fd);
	if (!new) {
		real.close(fd);
		return false;
	}
	describe(new);
	use_memory(new, fd);
	return true;
}

struct shared_listener *shared_listener_at(size_t index)
{
	return &memory->listener[index];
}

static struct shared_listener *place_of(struct shared_memory *in, uint64_t cookie)
{
	for (size_t i = 0; in && i < MAX_LISTENERS; i++)
		if (atomic_load(&in->listener[i].in_use) && in->listener[i].cookie == cookie)
			return &in->listener[i];
	return NULL;
}

struct shared_listener *shared_find(uint64_t cookie)
{
	return place_of(memory, cookie);
}

void shared_add_shard(struct shared_listener *listener, uint64_t cookie)
{
	for (size_t i = 0; i < COUNT(listener->shard); i++) {
		uint64_t none = 0;

		if (atomic_compare_exchange_strong(&listener->shard[i], &none, cookie) || none == cookie)
			return;
	}
}

static bool is_compatible(const struct shared_memory *other)
{
	return memcmp(other->magic, FSOCKET_SHARED_MAGIC, sizeof(other->magic)) == 0 &&
	       other->version == FSOCKET_SHARED_VERSION;
}

/*
 * Does the memory belong to this process's user, and is it sealed, so that it cannot become shorter while it is mapped?
 */
static bool can_be_trusted(int fd)
{
	struct stat status = { 0 };
	int seals = real.fcntl(fd, F_GET_SEALS);

	fstat(fd, &status);
	return seals >= 0 && (seals & SEALS) == SEALS && status.st_uid == geteuid() &&
	       status.st_size == sizeof(struct shared_memory);
}

/*
 * Uses the memory behind this descriptor, which it takes over or closes. Memory without a place for this listener is
 * another server's.
 */
static bool join(int fd, uint64_t cookie)
{
	struct shared_memory *other = fd >= 0 && can_be_trusted(fd) ? map_memory(fd) : NULL;

	if (other && is_compatible(other) && place_of(other, cookie)) {
		use_memory(other, out_of_the_way(fd));
		return true;
	}
	if (other)
		munmap(other, sizeof(*other));
	real.close(fd);
	return false;
}

static bool join_if_shared(const struct open_file *file, void *cookie)
{
	return strncmp(file->target, MEMFD, strlen(MEMFD)) == 0 &&
	       join(openat(file->directory, file->name, O_RDWR | O_CLOEXEC), *(const uint64_t *)cookie);
}

bool shared_join(pid_t pid, uint64_t cookie)
{
	return !memory && visit_open_files(pid, join_if_shared, &cookie);
}

struct cpu_counters *counters_of(int cpu)
{
	return &memory->cpu[(unsigned int)cpu < (unsigned int)cpus ? cpu : 0];
}

struct cpu_counters *counters_here(void)
{
	return counters_of(sched_getcpu());
}

void worker_departs(void)
{
	atomic_fetch_add(&memory->departures, 1);
}

void worker_arrives(void)
{
	atomic_fetch_add(&memory->arrivals, 1);
}

uint32_t workers_changes(void)
{
	return atomic_load_explicit(&memory->departures, memory_order_relaxed) +
	       atomic_load_explicit(&memory->arrivals, memory_order_relaxed);
}
