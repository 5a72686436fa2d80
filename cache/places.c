// SPDX-License-Identifier: Apache-2.0
#include "cache/places.h"

#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <xxhash.h>

#define STATE_NAME "modelmount"
#define PASSWD_MAX ((size_t) 1024 * 1024)

// ---- the hub cache ----

// A variable that is set and not empty.
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

// The home directory that the user database has for `user`, or for this process's user if NULL. -ENOENT.
static int home_of(const char *user, char **ret_home)
{
    for (size_t size = 4096; size <= PASSWD_MAX; size *= 2) {
        _cleanup_free_ char *buffer = malloc(size);
        if (!buffer)
            return -ENOMEM;
        struct passwd entry;
        struct passwd *found = NULL;
        int error =
            user ? getpwnam_r(user, &entry, buffer, size, &found) : getpwuid_r(getuid(), &entry, buffer, size, &found);
        if (error == ERANGE)
            continue;
        if (!found || found->pw_dir[0] != '/')
            return -ENOENT;
        *ret_home = strdup(found->pw_dir);
        return *ret_home ? 0 : -ENOMEM;
    }
    return -ENOENT;
}

static int own_home(char **ret_home)
{
    const char *home = variable("HOME");
    if (!home)
        return home_of(NULL, ret_home);
    *ret_home = strdup(home);
    return *ret_home ? 0 : -ENOMEM;
}

// `dir`/`name`, with one slash between. NULL when out of memory.
static char *join(const char *dir, const char *name)
{
    size_t len = strlen(dir);
    while (len > 0 && dir[len - 1] == '/')
        len--;
    char *path = NULL;
    return asprintf(&path, "%.*s/%s", (int) len, dir, name) < 0 ? NULL : path;
}

// As Python's os.path.expanduser(): "~" and "~user" at the start; an unknown user is left as it is.
static int expand_user(const char *s, char **ret_path)
{
    size_t len = strcspn(s, "/");
    _cleanup_free_ char *home = NULL;
    if (*s == '~' && len == 1) {
        int r = own_home(&home);
        if (r < 0)
            return r;
    } else if (*s == '~') {
        _cleanup_free_ char *user = strndup(s + 1, len - 1);
        if (!user)
            return -ENOMEM;
        int r = home_of(user, &home);
        if (r < 0 && r != -ENOENT)
            return r;
    }
    const char *rest = home ? s + len : s;
    size_t home_len = home ? strlen(home) : 0;
    while (home_len > 0 && home[home_len - 1] == '/')
        home_len--;
    bool empty = home_len == 0 && *rest == '\0';
    return asprintf(ret_path, "%.*s%s", (int) home_len, home ? home : "", empty ? "/" : rest) < 0 ? -ENOMEM : 0;
}

static size_t word_length(const char *s)
{
    return strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
}

// As Python's os.path.expandvars(): "$name" and "${name}"; what is not set is left as it is, and what was put in is not
// looked at again.
static int expand_variables(const char *s, char **ret_path)
{
    char *path = NULL;
    size_t size;
    FILE *out = open_memstream(&path, &size);
    if (!out)
        return -ENOMEM;
    while (*s) {
        size_t len = 1; // of what to put out, or of what to replace
        const char *name = NULL;
        size_t name_len = 0;
        if (s[0] == '$' && s[1] == '{' && strchr(s, '}')) {
            name = s + 2;
            name_len = strcspn(name, "}");
            len = name_len + 3;
        } else if (s[0] == '$' && word_length(s + 1) > 0) {
            name = s + 1;
            name_len = word_length(name);
            len = name_len + 1;
        }
        _cleanup_free_ char *key = name ? strndup(name, name_len) : NULL;
        const char *value = key ? getenv(key) : NULL;
        if (value)
            fputs(value, out);
        else
            fwrite(s, 1, len, out);
        s += len;
    }
    bool failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        free(path);
        return -ENOMEM;
    }
    *ret_path = path;
    return 0;
}

static int expand(const char *s, char **ret_path)
{
    _cleanup_free_ char *home = NULL;
    int r = expand_user(s, &home);
    return r < 0 ? r : expand_variables(home, ret_path);
}

static int make_absolute(const char *path, char **ret_path)
{
    if (*path == '/') {
        *ret_path = strdup(path);
        return *ret_path ? 0 : -ENOMEM;
    }
    _cleanup_free_ char *here = getcwd(NULL, 0);
    if (!here)
        return -errno;
    *ret_path = join(here, path);
    return *ret_path ? 0 : -ENOMEM;
}

// HF_HOME as constants.py finds it: "~/.cache/huggingface" when nothing else is said.
static int hf_home(char **ret_path)
{
    if (variable("HF_HOME"))
        return expand(variable("HF_HOME"), ret_path);
    _cleanup_free_ char *path = NULL;
    if (variable("XDG_CACHE_HOME")) {
        path = join(variable("XDG_CACHE_HOME"), "huggingface");
        return path ? expand(path, ret_path) : -ENOMEM;
    }
    _cleanup_free_ char *home = NULL;
    const char *sudo_user = geteuid() == 0 ? variable("SUDO_USER") : NULL;
    int r = sudo_user ? home_of(sudo_user, &home) : -ENOENT;
    if (r == -ENOENT)
        r = own_home(&home);
    if (r < 0)
        return r;
    *ret_path = join(home, ".cache/huggingface");
    return *ret_path ? 0 : -ENOMEM;
}

int places_hub_cache(char **ret_path)
{
    const char *value = variable("HF_HUB_CACHE");
    if (!value)
        value = variable("HUGGINGFACE_HUB_CACHE");
    _cleanup_free_ char *fallback = NULL;
    if (!value) {
        _cleanup_free_ char *home = NULL;
        int r = hf_home(&home);
        if (r < 0)
            return r;
        fallback = join(home, "hub");
        if (!fallback)
            return -ENOMEM;
        value = fallback; // expanded once more, as there
    }
    _cleanup_free_ char *path = NULL;
    int r = expand(value, &path);
    return r < 0 ? r : make_absolute(path, ret_path);
}

// ---- the state dir ----

// What is before the last slash of an absolute path and other slashes there. NULL when out of memory.
static char *directory_of(const char *path)
{
    const char *end = strrchr(path, '/');
    while (end > path && end[-1] == '/')
        end--;
    return end > path ? strndup(path, (size_t) (end - path)) : strdup("/");
}

// The path without links, as far as it exists, and what the last part that exists is.
static int real_path(const char *path, char **ret_real, struct stat *ret_stat)
{
    _cleanup_free_ char *start = NULL;
    int r = make_absolute(path, &start);
    if (r < 0)
        return r;
    size_t len = strlen(start);
    while (len > 1 && start[len - 1] == '/')
        start[--len] = '\0';
    size_t cut = len; // start[0..cut) exists, perhaps
    for (;;) {
        char was = start[cut];
        start[cut] = '\0';
        _cleanup_free_ char *real = realpath(cut ? start : "/", NULL);
        start[cut] = was;
        if (real) {
            if (stat(real, ret_stat) < 0)
                return -errno;
            const char *rest = start + cut + strspn(start + cut, "/");
            *ret_real = *rest ? join(real, rest) : util_take_ptr(real);
            return *ret_real ? 0 : -ENOMEM;
        }
        if (errno != ENOENT || cut == 0)
            return -errno;
        do
            cut--;
        while (cut > 0 && start[cut] != '/');
    }
}

// Opens the directory `name` in `parent`, which is made if it is missing, and is never a link. What root makes gets the
// owner and group of `parent`.
static int make_dir(int parent, const char *name, mode_t mode, int *ret_fd)
{
    bool made = mkdirat(parent, name, mode) == 0;
    if (!made && errno != EEXIST)
        return -errno;
    _cleanup_close_ int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct stat st;
    if (made && geteuid() == 0 && (fstat(parent, &st) < 0 || fchown(fd, st.st_uid, st.st_gid) < 0))
        return -errno;
    *ret_fd = util_take_fd(&fd);
    return 0;
}

// Opens the directory `path`, making what is missing of it.
static int make_dirs(const char *path, mode_t mode, int *ret_fd)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        *ret_fd = fd;
        return 0;
    }
    const char *slash = strrchr(path, '/');
    if (errno != ENOENT || !slash || !slash[1])
        return -errno;
    _cleanup_free_ char *above = directory_of(path);
    if (!above)
        return -ENOMEM;
    _cleanup_close_ int parent = -1;
    int r = make_dirs(above, mode, &parent);
    return r < 0 ? r : make_dir(parent, slash + 1, mode, ret_fd);
}

// Makes or takes the directory `name` in `parent` if we can work in it and its owner is not a stranger.
static int make_own_dir(int parent, const char *name, const struct stat *cache, int *ret_fd)
{
    _cleanup_close_ int fd = -1;
    int r = make_dir(parent, name, 0700, &fd);
    if (r < 0)
        return r;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (st.st_uid != geteuid() && st.st_uid != cache->st_uid && st.st_uid != 0)
        return -EPERM;
    if (faccessat(fd, ".", R_OK | W_OK | X_OK, AT_EACCESS) < 0)
        return -errno;
    *ret_fd = util_take_fd(&fd);
    return 0;
}

static bool on_device(int fd, dev_t device)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_dev == device;
}

// The state dir beside the cache at the real path `real`; -EXDEV when that would be another file system.
static int state_beside(const char *real, const struct stat *cache, char **ret_path)
{
    if (strcmp(real, "/") == 0)
        return -EXDEV;
    _cleanup_free_ char *parent = directory_of(real);
    _cleanup_free_ char *path = parent ? join(parent, STATE_NAME) : NULL;
    if (!path)
        return -ENOMEM;
    _cleanup_close_ int parent_fd = -1;
    int r = make_dirs(parent, 0777, &parent_fd);
    if (r < 0)
        return r;
    if (!on_device(parent_fd, cache->st_dev)) // before anything is made in it
        return -EXDEV;
    _cleanup_close_ int fd = -1;
    r = make_own_dir(parent_fd, STATE_NAME, cache, &fd);
    if (r < 0)
        return r;
    if (!on_device(fd, cache->st_dev))
        return -EXDEV;
    *ret_path = util_take_ptr(path);
    return 0;
}

// The state dir in the user's own place, XDG Base Directory Specification 0.8.
static int state_at_home(const char *real, const struct stat *cache, char **ret_path)
{
    _cleanup_free_ char *base = NULL;
    const char *xdg = variable("XDG_STATE_HOME");
    if (xdg && *xdg == '/') {
        base = strdup(xdg);
    } else {
        _cleanup_free_ char *home = NULL;
        int r = own_home(&home);
        if (r < 0)
            return r;
        base = join(home, ".local/state");
    }
    XXH128_hash_t hash = XXH3_128bits(real, strlen(real));
    char name[33];
    snprintf(name, sizeof name, "%016llx%016llx", (unsigned long long) hash.high64, (unsigned long long) hash.low64);
    _cleanup_free_ char *dir = base ? join(base, STATE_NAME) : NULL;
    _cleanup_free_ char *path = dir ? join(dir, name) : NULL;
    if (!path)
        return -ENOMEM;
    for (size_t len = strlen(base); len > 1 && base[len - 1] == '/'; len--)
        base[len - 1] = '\0';
    _cleanup_close_ int base_fd = -1;
    _cleanup_close_ int dir_fd = -1;
    _cleanup_close_ int fd = -1;
    int r = make_dirs(base, 0700, &base_fd);
    if (r == 0)
        r = make_own_dir(base_fd, STATE_NAME, cache, &dir_fd);
    if (r == 0)
        r = make_own_dir(dir_fd, name, cache, &fd);
    if (r == 0)
        *ret_path = util_take_ptr(path);
    return r;
}

int places_state_dir(const char *cache_path, char **ret_path)
{
    _cleanup_free_ char *real = NULL;
    struct stat cache;
    int r = real_path(cache_path, &real, &cache);
    if (r < 0)
        return r;
    r = state_beside(real, &cache, ret_path);
    return r < 0 && r != -ENOMEM ? state_at_home(real, &cache, ret_path) : r;
}

// ---- file systems ----

bool places_is_local(const char *path)
{
    // Those that linux/magic.h lacks are named after their own sources.
    static const uint32_t remote[] = {
        NFS_SUPER_MAGIC,  SMB_SUPER_MAGIC, CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC, V9FS_MAGIC,      FUSE_SUPER_MAGIC,
        CEPH_SUPER_MAGIC, AFS_SUPER_MAGIC, AFS_FS_MAGIC,     CODA_SUPER_MAGIC, NCP_SUPER_MAGIC, OCFS2_SUPER_MAGIC,
        0x0BD00BD0, // Lustre
        0x01161970, // GFS2
        0x47504653, // GPFS
        0x19830326, // BeeGFS
        0x20030528, // OrangeFS
        0xAAD7AAEA, // PanFS
        0x786F4256, // VirtualBox's shared folders
        0xBACBACBC, // VMware's
    };
    struct statfs st;
    if (statfs(path, &st) < 0)
        return false;
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
        if ((uint32_t) st.f_type == remote[i])
            return false;
    return true;
}
