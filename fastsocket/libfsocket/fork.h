/* SPDX-License-Identifier: MIT */
#ifndef FORK_H
#define FORK_H

/* Makes the tables those of this process, and keeps them right when it forks. */
void fork_start(void);

#endif
