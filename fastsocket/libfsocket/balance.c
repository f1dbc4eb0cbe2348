// SPDX-License-Identifier: MIT
#define _GNU_SOURCE
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "balance.h"
#include "clone.h"
#include "process.h"
#include "pulse.h"
#include "real.h"
#include "settings.h"

/* A worker that has not come back to its loop for this long is away. */
#define PATIENCE_NS 1000000
/* If this many more connections wait for a worker than for another one, the other one gets the next connection. */
#define LONG_QUEUE 8
/* The program looks at this many other CPUs, from a random one on. */
#define TRIES 64

#define NAME "fsocket_balance"
#define LICENSE "Dual MIT/GPL"

/* ---- the program ---- */

enum map { PULSES = 1, CLONES };
enum { R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, STACK };
/* Where the program's variables are on its stack. */
enum { OUR_CPU = -4, CPU = -8, OUR_PULSE = -16, PULSE = -24, LONGEST = -32 };

/*
 * balance.def is read twice. The first time each line gets its number, and a label the number of the line after it. The
 * second time each line becomes an instruction.
 */
#define JOIN(a, b) a##b
#define LINE_(number) JOIN(line_, number)
#define HERE LINE_(__LINE__)
#define I INSTRUCTION

#define MOVE(to, from) I(BPF_ALU64 | BPF_MOV | BPF_X, to, from, 0, 0)
#define SET(to, number) I(BPF_ALU64 | BPF_MOV | BPF_K, to, 0, 0, number)
#define ADD(to, number) I(BPF_ALU64 | BPF_ADD | BPF_K, to, 0, 0, number)
#define SUBTRACT(to, from) I(BPF_ALU64 | BPF_SUB | BPF_X, to, from, 0, 0)
#define SET_TO_CPUS(to) I(BPF_ALU | BPF_MOV | BPF_K, to, 0, 0, 1)
#define MODULO_CPUS(to) I(BPF_ALU | BPF_MOD | BPF_K, to, 0, 0, 1)
#define LOAD64(to, address, offset) I(BPF_LDX | BPF_MEM | BPF_DW, to, address, offset, 0)
#define PUT64(address, offset, from) I(BPF_STX | BPF_MEM | BPF_DW, address, from, offset, 0)
#define ATOMIC_ADD(address, offset, from) I(BPF_STX | BPF_ATOMIC | BPF_DW, address, from, offset, BPF_ADD)
#define LOAD32(to, place) I(BPF_LDX | BPF_MEM | BPF_W, to, STACK, place, 0)
#define STORE32(place, from) I(BPF_STX | BPF_MEM | BPF_W, STACK, from, place, 0)
#define FETCH64(to, place) LOAD64(to, STACK, place)
#define STORE64(place, from) PUT64(STACK, place, from)
#define MAP(to, which) I(BPF_LD | BPF_IMM | BPF_DW, to, BPF_PSEUDO_MAP_FD, 0, which)
#define MAP_END I(0, 0, 0, 0, 0)
#define CALL(helper) I(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_##helper)
#define IF(register, relation, number, label) \
	I(BPF_JMP | BPF_J##relation | BPF_K, register, 0, (label) - HERE - 1, number)
#define IF_REGISTER(register, relation, other, label) \
	I(BPF_JMP | BPF_J##relation | BPF_X, register, other, (label) - HERE - 1, 0)
#define GOTO(label) I(BPF_JMP | BPF_JA, 0, 0, (label) - HERE - 1, 0)
#define EXIT I(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)

enum {
#define INSTRUCTION(...) HERE,
#define LABEL(name) name, before_##name = name - 1,
#include "balance.def"
#undef INSTRUCTION
#undef LABEL
};

static const struct bpf_insn template[] = {
#define INSTRUCTION(operation, to, from, offset, number) \
	{ .code = (operation), .dst_reg = (to), .src_reg = (from), .off = (int16_t)(offset), .imm = (number) },
#define LABEL(name)
#include "balance.def"
#undef INSTRUCTION
#undef LABEL
};

/* ---- bpf(2) ---- */

/* Does nothing once the application has installed a seccomp filter: the filter may kill the process for the call. */
static int bpf(enum bpf_cmd command, union bpf_attr *attributes)
{
	if (seccomp_was_installed())
		return -1;
	return (int)real.syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

/* struct bpf_map_info and struct bpf_prog_info begin like this. */
static uint32_t id_of(int fd)
{
	struct {
		uint32_t type, id;
	} info = { 0 };
	union bpf_attr asked;

	memset(&asked, 0, sizeof(asked));
	asked.info.bpf_fd = (uint32_t)fd;
	asked.info.info_len = sizeof(info);
	asked.info.info = (uint64_t)(uintptr_t)&info;
	return bpf(BPF_OBJ_GET_INFO_BY_FD, &asked) ? 0 : info.id;
}

static struct loaded kept(int fd)
{
	fd = keep_descriptor(fd, PROGRAM);
	return fd < 0 ? (struct loaded){ 0 } : (struct loaded){ fd, id_of(fd) };
}

/* The key of the listener itself in the map of clones: behind the clones of all CPUs. */
static uint32_t listener_key(void)
{
	return (uint32_t)shared_cpus();
}

static struct loaded make_map(enum bpf_map_type type, uint32_t entries, uint32_t value_size, uint32_t flags)
{
	union bpf_attr wanted;

	memset(&wanted, 0, sizeof(wanted));
	wanted.map_type = type;
	wanted.key_size = sizeof(uint32_t);
	wanted.value_size = value_size;
	wanted.max_entries = entries;
	wanted.map_flags = flags;
	memcpy(wanted.map_name, NAME, sizeof(NAME));
	return kept(bpf(BPF_MAP_CREATE, &wanted));
}

static struct loaded load_program(int pulses, int clones)
{
	struct bpf_insn program[COUNT(template)];
	union bpf_attr wanted;

	memcpy(program, template, sizeof(template));
	for (size_t i = 0; i < COUNT(program); i++) {
		if (program[i].code == (BPF_LD | BPF_IMM | BPF_DW))
			program[i].imm = program[i].imm == PULSES ? pulses : clones;
		else if (program[i].code == (BPF_ALU | BPF_MOD | BPF_K) ||
		         program[i].code == (BPF_ALU | BPF_MOV | BPF_K))
			program[i].imm = (int32_t)shared_cpus();
	}
	memset(&wanted, 0, sizeof(wanted));
	wanted.prog_type = BPF_PROG_TYPE_SK_REUSEPORT;
	wanted.insns = (uint64_t)(uintptr_t)program;
	wanted.insn_cnt = COUNT(program);
	wanted.license = (uint64_t)(uintptr_t)LICENSE;
	memcpy(wanted.prog_name, NAME, sizeof(NAME));
	return kept(bpf(BPF_PROG_LOAD, &wanted));
}

static void change_clones(const struct listener *l, enum bpf_cmd command, uint32_t key, const uint64_t *fd)
{
	union bpf_attr wanted;

	memset(&wanted, 0, sizeof(wanted));
	wanted.map_fd = (uint32_t)l->clones_map.fd;
	wanted.key = (uint64_t)(uintptr_t)&key;
	wanted.value = (uint64_t)(uintptr_t)fd;
	bpf(command, &wanted);
}

/* ---- one program for each listener, and the pulses of the whole server ---- */

static struct loaded pulses_map;

/*
 * Closes a program or a map. The application may have closed the descriptor without the library's knowledge, and the
 * number may be another file's.
 */
static void let_go(struct loaded *object)
{
	if (!object->fd)
		return;
	set_descriptor(object->fd, UNKNOWN);
	if (id_of(object->fd) == object->id)
		real.close(object->fd);
	object->fd = 0;
}

static bool open_pulses(void)
{
	size_t bytes = (size_t)shared_cpus() * sizeof(struct pulse);
	static void *place; /* threads may still point into an earlier map of pulses, which was here */
	void *pulses;

	if (pulses_map.fd)
		return true;
	pulses_map = make_map(BPF_MAP_TYPE_ARRAY, (uint32_t)shared_cpus(), sizeof(struct pulse), BPF_F_MMAPABLE);
	pulses = !pulses_map.fd ? MAP_FAILED
	                        : mmap(place, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (place ? MAP_FIXED : 0),
	                               pulses_map.fd, 0);
	if (pulses == MAP_FAILED) {
		let_go(&pulses_map);
		return false;
	}
	place = pulses;
	pulses_use(pulses);
	return true;
}

/* Returns the program's id, or the negative error. */
static int32_t load(struct listener *l)
{
	int32_t error;

	if (open_pulses())
		l->clones_map = make_map(BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, listener_key() + 1, sizeof(uint64_t), 0);
	if (l->clones_map.fd)
		l->program = load_program(pulses_map.fd, l->clones_map.fd);
	error = -errno;
	if (l->program.fd)
		return (int32_t)l->program.id;
	balance_close(l);
	return error;
}

/* Loads nothing if there was a seccomp filter at the start: it may kill a process that calls bpf(). */
void balance_load(struct listener *l)
{
	atomic_store(&l->shared->balance, !settings.balance ? 0 : seccomp_at_start() ? -EACCES : load(l));
	for_each_clone(cpu, l)
		balance_add(l, cpu);
}

void balance_add(const struct listener *l, int cpu)
{
	uint64_t fd;

	if (!l->program.fd || !clone_listens(l, cpu))
		return;
	fd = (uint64_t)clone_of(l, cpu);
	change_clones(l, BPF_MAP_UPDATE_ELEM, (uint32_t)cpu, &fd);
	fd = (uint64_t)l->fd;
	change_clones(l, BPF_MAP_UPDATE_ELEM, listener_key(), &fd);
}

/*
 * Attaches the program only while it is the server's: another process may have put another one, or none, in its place.
 */
void balance_attach(const struct listener *l)
{
	if (l->program.fd && atomic_load(&l->shared->balance) == (int32_t)l->program.id)
		real.setsockopt(l->fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &l->program.fd, sizeof(l->program.fd));
}

void balance_again(const struct listener *l)
{
	if (l->program.fd)
		atomic_store(&l->shared->balance, (int32_t)l->program.id);
}

void balance_empty(const struct listener *l)
{
	if (!l->program.fd)
		return;
	for_each_clone(cpu, l)
		change_clones(l, BPF_MAP_DELETE_ELEM, (uint32_t)cpu, NULL);
	change_clones(l, BPF_MAP_DELETE_ELEM, listener_key(), NULL);
}

void balance_close(struct listener *l)
{
	let_go(&l->program);
	let_go(&l->clones_map);
}

void pulses_close(void)
{
	let_go(&pulses_map);
}

void balance_is_closed(int fd)
{
	set_descriptor(fd, UNKNOWN);
	for (size_t i = 0; i < MAX_LISTENERS; i++) {
		if (listeners[i].program.fd == fd)
			listeners[i].program.fd = 0;
		if (listeners[i].clones_map.fd == fd)
			listeners[i].clones_map.fd = 0;
	}
	if (pulses_map.fd == fd)
		pulses_map.fd = 0;
}
