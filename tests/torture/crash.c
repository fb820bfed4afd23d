/* Ends the process at the Nth change of the disk: a library for LD_PRELOAD.
 *
 * Counted over all threads are the calls that change something below one of CRASH_ROOTS (paths, ':' between them).
 * strace can kill at a call as well, but counts for each thread, so that the second sync of a process with a pool of
 * threads may be out of its reach; here every call has its number.
 *
 *   CRASH_AT     the number of the call, from 1; 0 only counts
 *   CRASH_HOW    before, after, or torn: half of what a write was to write is written (other calls: as before)
 *   CRASH_REPORT a file that gets the number of calls so far (16 digits), and the name and path of the one that ended it
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long calls;
static long crash_at;
static const char *how = "before", *roots = "";
static int report = -1;

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("CRASH_AT"), *path = getenv("CRASH_REPORT");
    if (!at || !path)
        return;
    crash_at = atol(at);
    how = getenv("CRASH_HOW") ? getenv("CRASH_HOW") : "before";
    roots = getenv("CRASH_ROOTS") ? getenv("CRASH_ROOTS") : "";
    report = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

static int below_a_root(const char *path)
{
    const char *root = roots;
    while (*root) {
        size_t length = strcspn(root, ":");
        if (length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]))
            return 1;
        root += length + (root[length] == ':');
    }
    return 0;
}

static const char *path_of(int fd, char *buffer)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    buffer[length > 0 ? length : 0] = 0;
    return buffer;
}

static void die(const char *name, const char *path)
{
    char text[PATH_MAX + 64];
    int length = snprintf(text, sizeof text, "%s %s\n", name, path);
    syscall(SYS_pwrite64, report, text, (size_t)length, 17L);
    syscall(SYS_kill, (long)getpid(), (long)SIGKILL);
    for (;;)
        pause();
}

/* Counts a call on a path. 1: it is the one, and the process ends after it (or in the middle of it). */
static int counted(const char *name, const char *path)
{
    if (report < 0 || !path || !below_a_root(path))
        return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    char text[32];
    int length = snprintf(text, sizeof text, "%016ld\n", number);
    syscall(SYS_pwrite64, report, text, (size_t)length, 0L);
    if (number != crash_at)
        return 0;
    if (how[0] == 'b')
        die(name, path);
    return 1;
}

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) \
        real = (type (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define WRITES(symbol) \
    char buffer[PATH_MAX]; \
    const char *path = report < 0 ? "" : path_of(fd, buffer); \
    int last = counted(symbol, path);

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    WRITES("write")
    ssize_t done = real(fd, data, last && how[0] == 't' ? size / 2 : size);
    if (last)
        die("write", path);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    WRITES("pwrite")
    ssize_t done = real(fd, data, last && how[0] == 't' ? size / 2 : size, offset);
    if (last)
        die("pwrite", path);
    return done;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return pwrite64(fd, data, size, offset); }

ssize_t copy_file_range(int from, off64_t *at, int fd, off64_t *to, size_t size, unsigned flags)
{
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    WRITES("copy_file_range")
    ssize_t done = real(from, at, fd, to, last && how[0] == 't' ? size / 2 : size, flags);
    if (last)
        die("copy_file_range", path);
    return done;
}

#define ON_FD(type, name, arguments, forward, kinds) \
    type name arguments \
    { \
        REAL(type, #name, kinds); \
        WRITES(#name) \
        if (last && how[0] == 't') \
            die(#name, path); \
        type result = real forward; \
        if (last) \
            die(#name, path); \
        return result; \
    }
#define COMMA ,

ON_FD(int, fsync, (int fd), (fd), int)
ON_FD(int, fdatasync, (int fd), (fd), int)
ON_FD(int, ftruncate, (int fd, off_t size), (fd, size), int COMMA off_t)
ON_FD(int, ftruncate64, (int fd, off64_t size), (fd, size), int COMMA off64_t)
ON_FD(int, fallocate, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size), int COMMA int COMMA off_t COMMA off_t)
ON_FD(ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size),
      int COMMA int COMMA off64_t * COMMA size_t)
ON_FD(int, fchmod, (int fd, mode_t mode), (fd, mode), int COMMA mode_t)

#define ON_PATH(name, arguments, forward, kinds, path) \
    int name arguments \
    { \
        REAL(int, #name, kinds); \
        char buffer[PATH_MAX]; \
        (void)buffer; \
        const char *where = report < 0 ? "" : (path); \
        int last = counted(#name, where); \
        if (last && how[0] == 't') \
            die(#name, where); \
        int result = real forward; \
        if (last) \
            die(#name, where); \
        return result; \
    }

static const char *at(int folder, const char *path, char *buffer)
{
    if (path[0] == '/' || folder == AT_FDCWD)
        return path;
    path_of(folder, buffer);
    size_t length = strlen(buffer);
    snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return buffer;
}

ON_PATH(rename, (const char *from, const char *to), (from, to), const char * COMMA const char *, to)
ON_PATH(link, (const char *from, const char *to), (from, to), const char * COMMA const char *, to)
ON_PATH(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags),
        int COMMA const char * COMMA int COMMA const char * COMMA int, at(b, to, buffer))
ON_PATH(renameat, (int a, const char *from, int b, const char *to), (a, from, b, to),
        int COMMA const char * COMMA int COMMA const char *, at(b, to, buffer))
ON_PATH(symlinkat, (const char *text, int folder, const char *path), (text, folder, path),
        const char * COMMA int COMMA const char *, at(folder, path, buffer))
ON_PATH(mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode),
        int COMMA const char * COMMA mode_t, at(folder, path, buffer))
ON_PATH(symlink, (const char *text, const char *path), (text, path), const char * COMMA const char *, path)
ON_PATH(unlink, (const char *path), (path), const char *, path)
ON_PATH(unlinkat, (int folder, const char *path, int flags), (folder, path, flags), int COMMA const char * COMMA int,
        at(folder, path, buffer))
ON_PATH(rmdir, (const char *path), (path), const char *, path)
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode), const char * COMMA mode_t, path)
ON_PATH(chmod, (const char *path, mode_t mode), (path, mode), const char * COMMA mode_t, path)

/* Opening counts where it may make a file or empty one. */
static int opens(const char *symbol, int folder, const char *path, int flags, mode_t mode)
{
    char buffer[PATH_MAX];
    int changes = report >= 0 && (flags & (O_CREAT | O_TRUNC));
    const char *where = changes ? at(folder, path, buffer) : "";
    int last = changes && counted(symbol, where);
    if (last && how[0] == 't')
        die(symbol, where);
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (last)
        die(symbol, where);
    return fd;
}

#define OPENS(name, folder_argument, folder) \
    int name(folder_argument const char *path, int flags, ...) \
    { \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return opens("open", folder, path, flags, mode); \
    }
OPENS(open, , AT_FDCWD)
OPENS(open64, , AT_FDCWD)
OPENS(openat, int folder COMMA, folder)
OPENS(openat64, int folder COMMA, folder)
