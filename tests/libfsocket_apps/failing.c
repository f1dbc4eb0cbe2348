/*
 * Makes one system call of the process fail, as the kernel does it: by a seccomp filter. FAIL says which:
 * NUMBER ERRNO [ARGUMENT VALUE LAST]…, where each of these arguments is from VALUE to LAST. Preloaded before
 * libfsocket.so, its constructor runs after that library's, which does not notice the filter.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

#define CONDITIONS 4

static struct sock_filter steps[4 + CONDITIONS * 5];
static unsigned short length;

static void add(struct sock_filter step)
{
	steps[length++] = step;
}

static void go_on_if(unsigned short jump, unsigned int value, int is_so)
{
	add((struct sock_filter)BPF_JUMP(BPF_JMP | BPF_K | jump, value, is_so ? 1 : 0, is_so ? 0 : 1));
	add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

__attribute__((constructor)) static void install(void)
{
	int (*libc_prctl)(int, ...) = (int (*)(int, ...))dlsym(dlopen("libc.so.6", RTLD_NOW), "prctl");
	const char *rest = getenv("FAIL");
	unsigned int number, error, argument, first, last;
	struct sock_fprog program = { .filter = steps };
	int used;

	if (!rest || sscanf(rest, "%u %u%n", &number, &error, &used) != 2)
		abort();
	add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)));
	go_on_if(BPF_JEQ, number, 1);
	for (rest += used; sscanf(rest, " %u %u %u%n", &argument, &first, &last, &used) == 3; rest += used) {
		add((struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
		                                 offsetof(struct seccomp_data, args[argument])));
		go_on_if(BPF_JGE, first, 1);
		go_on_if(BPF_JGT, last, 0);
	}
	add((struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error));
	program.len = length;
	if (libc_prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || libc_prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		abort();
}
