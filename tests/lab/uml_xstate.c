/* User Mode Linux on processors whose extended state is larger than it knows (AMX: 11,008 octets, it has room for 2,696).
 *
 * The kernel takes a whole XSAVE image only (xstateregs_set: count must be the full size), so UML's shorter one is
 * answered with EFAULT and every process of the guest dies at its first instruction. Preloaded into linux.uml, this puts
 * what UML brings into the image that the process has; the components behind it (tiles) nothing in the guest uses.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

#define LARGEST 65536

typedef long (*ptrace_function)(int, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_function next;
	static char image[LARGEST]; /* UML is one thread here; it traces from that one */
	va_list arguments;
	pid_t pid;
	void *address, *data;
	long result;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (!next)
		next = (ptrace_function)dlsym(RTLD_NEXT, "ptrace");
	result = next(request, pid, address, data);
	if (result == 0 || request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE || errno != EFAULT)
		return result;
	struct iovec *brought = data;
	struct iovec whole = {image, sizeof image};
	if (next(PTRACE_GETREGSET, pid, address, &whole) || brought->iov_len > whole.iov_len)
		return result;
	memcpy(image, brought->iov_base, brought->iov_len);
	return next(PTRACE_SETREGSET, pid, address, &whole);
}
