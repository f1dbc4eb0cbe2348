#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
#include <netinet/in.h>
int setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
	int (*next)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");
	if (level == IPPROTO_IP && name == 51) {
		errno = ENOPROTOOPT;
		return -1;
	}
	return next(fd, level, name, value, size);
}
#ifdef ALL
int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
	int (*next)(int, int, int, void *, socklen_t *) = dlsym(RTLD_NEXT, "getsockopt");
	if (level == IPPROTO_IP && name == 51) {
		errno = ENOPROTOOPT;
		return -1;
	}
	return next(fd, level, name, value, size);
}
#endif
