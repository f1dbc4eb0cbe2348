/* SPDX-License-Identifier: MIT */
/* Source ports that belong to a CPU. */
#ifndef PORTS_H
#define PORTS_H

#include <stdbool.h>
#include <stdint.h>

/* The lowest bits of a port that tell its CPU: as many as it takes to number all CPUs. */
static inline unsigned int port_mask(unsigned int cpus)
{
	unsigned int size = 1;

	while (size < cpus)
		size *= 2;
	return size - 1;
}

/*
 * The CPU that a port belongs to, as Fastsocket's hash has it: port & (roundup_pow2(cpus) - 1). Where the number of
 * CPUs is no power of two, some ports are left without a CPU: they are spare ports of the first CPUs.
 */
static inline unsigned int core_of_port(uint16_t port, unsigned int cpus)
{
	unsigned int bits = port & port_mask(cpus);

	return bits < cpus ? bits : bits - cpus;
}

/*
 * Reads the range of local ports. Returns the number of CPUs of the machine as every program that steers counts it: one
 * more than the highest possible CPU.
 */
unsigned int ports_start(void);
/* The next local port for the calling thread whose lowest bits are these; 0: there is none. */
uint32_t next_port(unsigned int bits, unsigned int cpus);
/* Reads net.ipv4.ip_local_port_range again, if the last time is some while ago. */
void look_at_local_ports_again(void);
void ports_after_fork(void);

#endif
