/* SPDX-License-Identifier: MIT */
#ifndef FORK_H
#define FORK_H

/* Make the tables those of this process, and keep them right when it forks. */
void fork_start(void);

#endif
