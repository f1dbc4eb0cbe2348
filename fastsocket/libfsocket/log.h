/* SPDX-License-Identifier: MIT */
#ifndef LOG_H
#define LOG_H

void log_start(void);
/*
 * Writes one line to stderr, if descriptor 2 is still the file that it was when the program started, and takes the line
 * at once. Keeps errno.
 */
void fsocket_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
