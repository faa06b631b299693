/*
 * A layer between a process and its files (LD_PRELOAD): every change below POWER_CUT_ROOT, in the order in which it was made,
 * goes to the journal POWER_CUT_JOURNAL too. What a disk would hold after a power cut is then for the test to say (disk.rs).
 *
 * One lock is held over a change and its record, so the order is the true one, and no caller is told of a change that is not
 * in the journal. Syncs are recorded and not carried out: the journal outlives the process, and the machine stays up.
 *
 * Only calls that faceflow makes are known. A change that goes another way is noticed by the test, which compares the
 * files with what the journal says of them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, MKDIR, WRITE, RESIZE, SYNC, RENAME, LINK, UNLINK };

struct head {
    uint32_t kind, first_length, second_length, reserved;
    uint64_t inode, at, data_length;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int journal = -1;

__attribute__((constructor)) static void begin(void) {
    const char *watched = getenv("POWER_CUT_ROOT"), *path = getenv("POWER_CUT_JOURNAL");
    if (!watched || !path || !realpath(watched, root)) return;
    root_length = strlen(root);
    journal = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int below(const char *path) {
    return journal >= 0 && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

/* The absolute path of what is or will be at `path`; whether it is watched. */
static int watched_path(const char *path, char *whole) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int saved = errno;
    if (journal < 0 || strlen(path) >= sizeof folder) return 0;
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int known = *name && realpath(folder, whole) && strlen(whole) + strlen(name) + 2 < PATH_MAX;
    if (known) sprintf(whole + strlen(whole), "/%s", name);
    errno = saved;
    return known && below(whole);
}

/* The inode of an open file or folder, if it is watched. */
static int watched_file(int file, uint64_t *inode) {
    char link[64], path[PATH_MAX];
    struct stat found;
    int saved = errno;
    if (journal < 0 || file < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) path[length] = 0;
    int known = length > 0 && below(path) && !fstat(file, &found);
    if (known) *inode = found.st_ino;
    errno = saved;
    return known;
}

static void record(struct head head, const char *first, const char *second, const struct iovec *data, int count) {
    struct iovec parts[3 + 64];
    int saved = errno, all = 3;
    head.first_length = first ? strlen(first) : 0;
    head.second_length = second ? strlen(second) : 0;
    parts[0] = (struct iovec){&head, sizeof head};
    parts[1] = (struct iovec){(void *)first, head.first_length};
    parts[2] = (struct iovec){(void *)second, head.second_length};
    uint64_t left = head.data_length, whole = sizeof head + head.first_length + head.second_length + left;
    for (int n = 0; n < count && n < 64 && left; n++) {
        size_t part = data[n].iov_len < left ? data[n].iov_len : left;
        parts[all++] = (struct iovec){data[n].iov_base, part};
        left -= part;
    }
    if (left || syscall(SYS_writev, journal, parts, all) != (ssize_t)whole) abort();
    errno = saved;
}

static void paths(uint32_t kind, uint64_t inode, const char *first, const char *second) {
    record((struct head){.kind = kind, .inode = inode}, first, second, NULL, 0);
}

static int open_file(const char *path, int flags, mode_t mode) {
    char whole[PATH_MAX];
    struct stat found;
    if (!(flags & (O_CREAT | O_TRUNC)) || !watched_path(path, whole)) {
        return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    }
    pthread_mutex_lock(&lock);
    int saved = errno, known = !stat(whole, &found);
    errno = saved;
    int file = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (file >= 0 && !fstat(file, &found)) {
        if (!known) paths(CREATE, found.st_ino, whole, NULL);
        else if (flags & O_TRUNC) record((struct head){.kind = RESIZE, .inode = found.st_ino}, NULL, NULL, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return file;
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                        \
        va_end(rest);                                                                                                  \
        return open_file(path, flags, mode);                                                                           \
    }
OPEN(open)
OPEN(open64)

/* `at` is where the data went; -1: up to where the file stands now. */
static void written(uint64_t inode, int file, int64_t at, const struct iovec *data, int count, ssize_t length) {
    if (length <= 0) return;
    if (at < 0) at = lseek(file, 0, SEEK_CUR) - length;
    record((struct head){.kind = WRITE, .inode = inode, .at = at, .data_length = length}, NULL, NULL, data, count);
}

#define WRITES(signature, call, at, data, count)                                                                       \
    ssize_t signature {                                                                                                \
        uint64_t inode;                                                                                                \
        if (!watched_file(file, &inode)) return call;                                                                  \
        pthread_mutex_lock(&lock);                                                                                     \
        ssize_t length = call;                                                                                         \
        written(inode, file, at, data, count, length);                                                                 \
        pthread_mutex_unlock(&lock);                                                                                   \
        return length;                                                                                                 \
    }
#define ONE(data, length) (&(struct iovec){(void *)(data), length})
WRITES(write(int file, const void *data, size_t size), syscall(SYS_write, file, data, size), -1, ONE(data, size), 1)
WRITES(writev(int file, const struct iovec *data, int count), syscall(SYS_writev, file, data, count), -1, data, count)
WRITES(pwrite(int file, const void *data, size_t size, off_t at), syscall(SYS_pwrite64, file, data, size, at), at,
       ONE(data, size), 1)
WRITES(pwrite64(int file, const void *data, size_t size, off64_t at), syscall(SYS_pwrite64, file, data, size, at), at,
       ONE(data, size), 1)

static int resize(int file, off64_t size) {
    uint64_t inode;
    if (!watched_file(file, &inode)) return syscall(SYS_ftruncate, file, size);
    pthread_mutex_lock(&lock);
    int failed = syscall(SYS_ftruncate, file, size);
    if (!failed) record((struct head){.kind = RESIZE, .inode = inode, .at = size}, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return failed;
}

int ftruncate(int file, off_t size) { return resize(file, size); }
int ftruncate64(int file, off64_t size) { return resize(file, size); }

static int sync_file(int file, long number) {
    uint64_t inode;
    if (!watched_file(file, &inode)) return syscall(number, file);
    pthread_mutex_lock(&lock);
    record((struct head){.kind = SYNC, .inode = inode}, NULL, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int file) { return sync_file(file, SYS_fsync); }
int fdatasync(int file) { return sync_file(file, SYS_fdatasync); }

static int change(uint32_t kind, const char *from, const char *to, long number, long a, long b, long c, long d, long e) {
    char first[PATH_MAX], second[PATH_MAX];
    int watched = watched_path(from, first);
    if (to) watched |= watched_path(to, second);
    if (!watched) return syscall(number, a, b, c, d, e);
    pthread_mutex_lock(&lock);
    int failed = syscall(number, a, b, c, d, e);
    struct stat found = {0};
    if (!failed && kind == MKDIR) stat(first, &found);
    if (!failed) paths(kind, found.st_ino, first, to ? second : NULL);
    pthread_mutex_unlock(&lock);
    return failed;
}

int mkdir(const char *path, mode_t mode) {
    return change(MKDIR, path, NULL, SYS_mkdirat, AT_FDCWD, (long)path, mode, 0, 0);
}
int rename(const char *from, const char *to) {
    return change(RENAME, from, to, SYS_renameat2, AT_FDCWD, (long)from, AT_FDCWD, (long)to, 0);
}
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    if (from_folder != AT_FDCWD || to_folder != AT_FDCWD) return errno = ENOTSUP, -1;
    return change(LINK, from, to, SYS_linkat, AT_FDCWD, (long)from, AT_FDCWD, (long)to, flags);
}
int unlink(const char *path) { return change(UNLINK, path, NULL, SYS_unlinkat, AT_FDCWD, (long)path, 0, 0, 0); }
int rmdir(const char *path) { return change(UNLINK, path, NULL, SYS_unlinkat, AT_FDCWD, (long)path, AT_REMOVEDIR, 0, 0); }
