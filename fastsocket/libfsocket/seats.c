// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "process.h"
#include "real.h"
#include "seats.h"

uint64_t myself(void)
{
	return (uint64_t)getpid() << 32 | (uint64_t)real.syscall(SYS_gettid);
}

bool thread_is_alive(uint64_t adopter)
{
	int saved_errno = errno;
	bool alive;

	if (!adopter || seccomp_was_installed()) /* a seccomp filter may forbid the question */
		return adopter;
	alive = real.syscall(SYS_tgkill, adopter >> 32, adopter & UINT32_MAX, 0) == 0 || errno != ESRCH;
	errno = saved_errno;
	return alive;
}

bool seat_is_taken(const struct seat *seat)
{
	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		if (thread_is_alive(atomic_load(&seat->adopter[i])))
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
	length = real.read(fd, text, sizeof(text) - 1);
	real.close(fd);
	text[length > 0 ? length : 0] = '\0';
	name_end = strrchr(text, ')');
	return name_end && strncmp(name_end, ") R", 3) == 0;
}

bool seat_has_runner(const struct seat *seat)
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
		alive += thread_is_alive(atomic_load_explicit(&workers[i], memory_order_relaxed));
	return alive;
}

size_t workers_of(const struct shared_listener *listener)
{
	size_t workers = alive_among(listener->waiting, COUNT(listener->waiting));

	for (long cpu = 0; cpu < shared_cpus(); cpu++)
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

bool has_process(const struct shared_listener *listener, pid_t pid)
{
	bool has = atomic_load(&listener->creator) == pid || is_among(listener->waiting, COUNT(listener->waiting), pid);

	for (long cpu = 0; cpu < shared_cpus() && !has; cpu++)
		has = is_among(listener->seat[cpu].adopter, MAX_ADOPTERS, pid);
	return has;
}

static bool sit_down(_Atomic uint64_t *place)
{
	uint64_t present = atomic_load(place);

	return !thread_is_alive(present) && atomic_compare_exchange_strong(place, &present, myself());
}

/* If two threads find the seat free, both try its first place, and one of them gets it. */
bool seat_claim(struct seat *seat)
{
	return !seat_is_taken(seat) && sit_down(&seat->adopter[0]);
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

void seat_join(struct seat *seat)
{
	sit_among(seat->adopter, MAX_ADOPTERS);
}

bool seat_is_mine(const struct seat *seat)
{
	return sits_among(seat->adopter, MAX_ADOPTERS, myself());
}

bool seat_is_shared(const struct seat *seat)
{
	size_t taken = 0;

	for (size_t i = 0; i < MAX_ADOPTERS; i++)
		taken += atomic_load(&seat->adopter[i]) != 0;
	return taken > 1 && alive_among(seat->adopter, MAX_ADOPTERS) > 1;
}

void waits_without_seat(struct shared_listener *listener)
{
	sit_among(listener->waiting, COUNT(listener->waiting));
}

static bool stand_up(_Atomic uint64_t *place, uint64_t present)
{
	return atomic_compare_exchange_strong(place, &present, 0);
}

static void stand_up_everywhere(_Atomic uint64_t *places, size_t n, uint64_t worker)
{
	for (size_t i = 0; i < n; i++)
		stand_up(&places[i], worker);
}

void seat_leave(struct seat *seat, uint64_t worker)
{
	stand_up_everywhere(seat->adopter, MAX_ADOPTERS, worker);
}

void waits_no_longer(struct shared_listener *listener)
{
	stand_up_everywhere(listener->waiting, COUNT(listener->waiting), myself());
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

bool seat_leave_with_all_threads(struct seat *seat)
{
	return all_threads_stand_up(seat->adopter, MAX_ADOPTERS);
}

void no_thread_waits(struct shared_listener *listener)
{
	all_threads_stand_up(listener->waiting, COUNT(listener->waiting));
}
