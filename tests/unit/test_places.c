// SPDX-License-Identifier: Apache-2.0
#include "cache/places.h"
#include "cache/util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define STRANGER 54321
#define OTHER 54322

static char *root;

static int make_root(void **state)
{
    (void) state;
    static const char *const variables[] = { "HF_HUB_CACHE",   "HUGGINGFACE_HUB_CACHE", "HF_HOME",
                                             "XDG_CACHE_HOME", "XDG_STATE_HOME",        "SUDO_USER",
                                             "UNSET" };
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    setenv("HOME", "/home/me", 1);
    umask(022);
    root = strdup("/tmp/modelmount-places-XXXXXX");
    return root && mkdtemp(root) && chmod(root, 0755) == 0 ? 0 : -1;
}

static int drop_root(void **state)
{
    (void) state;
    char command[256];
    snprintf(command, sizeof command, "rm -rf %s", root);
    int r = system(command);
    free(root);
    return r;
}

// `path` below root, in one of four static buffers.
static const char *at(const char *path)
{
    static char buffers[4][PATH_MAX];
    static unsigned turn;
    char *buffer = buffers[turn++ % 4];
    snprintf(buffer, sizeof buffers[0], "%s/%s", root, path);
    return buffer;
}

static void make_dir(const char *path)
{
    assert_int_equal(mkdir(at(path), 0755), 0);
}

static void assert_hub_cache(const char *wanted)
{
    _cleanup_free_ char *path = NULL;
    assert_int_equal(places_hub_cache(&path), 0);
    assert_string_equal(path, wanted);
}

static void assert_state_dir(const char *cache, const char *wanted)
{
    _cleanup_free_ char *path = NULL;
    int r = places_state_dir(cache, &path);
    if (r != 0)
        fail_msg("%s", strerror(-r));
    assert_string_equal(path, wanted);
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISDIR(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0700);
}

// A state dir of this cache at home: $XDG_STATE_HOME/modelmount/<32 hex digits>.
static void assert_state_at_home(const char *cache, char ret_path[PATH_MAX])
{
    _cleanup_free_ char *path = NULL;
    int r = places_state_dir(cache, &path);
    if (r != 0)
        fail_msg("%s", strerror(-r));
    const char *start = at("state/modelmount/");
    assert_memory_equal(path, start, strlen(start));
    assert_int_equal(strspn(path + strlen(start), "0123456789abcdef"), 32);
    assert_int_equal(strlen(path), strlen(start) + 32);
    assert_int_equal(access(path, W_OK), 0);
    if (ret_path)
        stpcpy(ret_path, path);
}

static uid_t owner(const char *path)
{
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    return st.st_uid;
}

static void the_hub_cache_is_where_the_library_has_it(void **state)
{
    (void) state;
    assert_hub_cache("/home/me/.cache/huggingface/hub");
    setenv("XDG_CACHE_HOME", "/xdg/", 1);
    assert_hub_cache("/xdg/huggingface/hub");
    setenv("HF_HOME", "/hf/", 1);
    assert_hub_cache("/hf/hub");
    setenv("HUGGINGFACE_HUB_CACHE", "/legacy", 1);
    assert_hub_cache("/legacy");
    setenv("HF_HUB_CACHE", "/cache", 1);
    assert_hub_cache("/cache");
    setenv("HF_HUB_CACHE", "", 1);
    assert_hub_cache("/legacy");
    setenv("HUGGINGFACE_HUB_CACHE", "", 1);
    assert_hub_cache("/hf/hub");
}

// What Python 3.11 gives for os.path.expandvars(os.path.expanduser(…)).
static void values_are_expanded_as_python_does(void **state)
{
    (void) state;
    setenv("A", "/a", 1);
    setenv("A_1", "one", 1);
    setenv("DOLLAR", "$A", 1);
    setenv("EMPTY", "", 1);
    static const struct {
        const char *value, *wanted;
    } cases[] = {
        { "~", "/home/me" },
        { "~/", "/home/me/" },
        { "~/x", "/home/me/x" },
        { "~//x", "/home/me//x" },
        { "/x/~", "/x/~" },
        { "/$A/x", "//a/x" },
        { "${A}b", "/ab" },
        { "$A_1", NULL },
        { "/${A_1}$A", "/one/a" },
        { "/$UNSET/${UNSET}/x", "/$UNSET/${UNSET}/x" },
        { "/$/${/$}/$-", "/$/${/$}/$-" },
        { "/${}x", "/${}x" },
        { "/x$", "/x$" },
        { "/$DOLLAR", "/$A" },
        { "/x${EMPTY}y$EMPTY", "/xy" },
        { "~no-such-user/x", NULL },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("HF_HUB_CACHE", cases[i].value, 1);
        if (cases[i].wanted) {
            assert_hub_cache(cases[i].wanted);
            continue;
        }
        _cleanup_free_ char *here = getcwd(NULL, 0);
        char wanted[PATH_MAX];
        snprintf(wanted, sizeof wanted, "%s/%s", here, cases[i].value[0] == '$' ? "one" : cases[i].value);
        assert_hub_cache(wanted);
    }
    setenv("HF_HUB_CACHE", "~root/x", 1);
    assert_hub_cache(getpwnam("root") ? "/root/x" : "");
    setenv("HOME", "/", 1);
    setenv("HF_HUB_CACHE", "~", 1);
    assert_hub_cache("/");
    setenv("HF_HUB_CACHE", "~/x", 1);
    assert_hub_cache("/x");
    unsetenv("HF_HUB_CACHE");
    // The default of one variable goes through the expansion of the other, so twice.
    setenv("HF_HOME", "/$DOLLAR", 1);
    assert_hub_cache("//a/hub");
    unsetenv("HF_HOME");
    setenv("XDG_CACHE_HOME", "$A", 1);
    assert_hub_cache("/a/huggingface/hub");
}

static void a_home_that_is_not_set_is_looked_up(void **state)
{
    (void) state;
    struct passwd *me = getpwuid(getuid());
    if (!me)
        skip();
    char wanted[PATH_MAX];
    snprintf(wanted, sizeof wanted, "%s/.cache/huggingface/hub", me->pw_dir);
    unsetenv("HOME");
    assert_hub_cache(wanted);
    setenv("HOME", "", 1);
    assert_hub_cache(wanted);
}

static void under_sudo_the_cache_is_the_user_s(void **state)
{
    (void) state;
    struct passwd *user = getpwnam("daemon");
    if (geteuid() != 0 || !user)
        skip();
    char wanted[PATH_MAX];
    snprintf(wanted, sizeof wanted, "%s/.cache/huggingface/hub", user->pw_dir);
    setenv("SUDO_USER", "daemon", 1);
    assert_hub_cache(wanted);
    setenv("SUDO_USER", "no-such-user", 1);
    assert_hub_cache("/home/me/.cache/huggingface/hub");
    setenv("SUDO_USER", "daemon", 1);
    setenv("HF_HOME", "/hf", 1);
    assert_hub_cache("/hf/hub");
    unsetenv("HF_HOME");
    assert_int_equal(seteuid(STRANGER), 0);
    _cleanup_free_ char *path = NULL;
    int r = places_hub_cache(&path);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(r, 0);
    assert_string_equal(path, "/home/me/.cache/huggingface/hub");
}

static void the_state_lies_beside_the_cache(void **state)
{
    (void) state;
    make_dir("hub");
    assert_state_dir(at("hub"), at("modelmount"));
    assert_state_dir(at("hub//"), at("modelmount"));
    make_dir("sub");
    assert_int_equal(symlink("../hub", at("sub/link")), 0);
    assert_state_dir(at("sub/link"), at("modelmount"));
    // A cache that is not there yet, and neither is what it will lie in.
    assert_state_dir(at("home/.cache/huggingface/hub"), at("home/.cache/huggingface/modelmount"));
    assert_int_not_equal(access(at("home/.cache/huggingface/hub"), F_OK), 0);
}

static void a_relative_cache_has_its_state_beside_it_too(void **state)
{
    (void) state;
    _cleanup_close_ int here = open(".", O_PATH | O_DIRECTORY);
    make_dir("hub");
    assert_int_equal(chdir(root), 0);
    _cleanup_free_ char *path = NULL;
    int r = places_state_dir("hub", &path);
    assert_int_equal(fchdir(here), 0);
    assert_int_equal(r, 0);
    assert_string_equal(path, at("modelmount"));
}

static void another_file_system_is_not_beside(void **state)
{
    (void) state;
    struct stat dev, shm;
    if (stat("/dev", &dev) < 0 || stat("/dev/shm", &shm) < 0 || dev.st_dev == shm.st_dev)
        skip();
    setenv("XDG_STATE_HOME", at("state"), 1);
    char first[PATH_MAX];
    char second[PATH_MAX];
    assert_state_at_home("/dev/shm", first);
    assert_int_not_equal(access("/dev/modelmount", F_OK), 0);
    assert_state_at_home("/dev/shm/", second);
    assert_string_equal(first, second);
    assert_state_at_home("/", second);
    assert_string_not_equal(first, second);
}

static void what_is_not_ours_beside_the_cache_is_not_used(void **state)
{
    (void) state;
    setenv("XDG_STATE_HOME", at("state//"), 1);
    make_dir("elsewhere");
    make_dir("a");
    make_dir("a/hub");
    assert_int_equal(symlink("../elsewhere", at("a/modelmount")), 0);
    assert_state_at_home(at("a/hub"), NULL);
    make_dir("b");
    make_dir("b/hub");
    assert_int_equal(close(open(at("b/modelmount"), O_CREAT | O_WRONLY, 0600)), 0);
    char path[PATH_MAX];
    assert_state_at_home(at("b/hub"), path);
    if (geteuid() != 0)
        skip();
    make_dir("c");
    make_dir("c/hub");
    make_dir("c/modelmount");
    assert_int_equal(chown(at("c/modelmount"), OTHER, OTHER), 0);
    assert_state_at_home(at("c/hub"), NULL);
    // Of the cache's owner it is fine.
    assert_int_equal(chown(at("c/hub"), OTHER, OTHER), 0);
    assert_int_equal(chmod(at("c/modelmount"), 0700), 0);
    assert_state_dir(at("c/hub"), at("c/modelmount"));
    // The same at home.
    assert_int_equal(chown(path, OTHER, OTHER), 0);
    _cleanup_free_ char *none = NULL;
    assert_int_equal(places_state_dir(at("b/hub"), &none), -EPERM);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(symlink("/tmp", path), 0);
    assert_int_equal(places_state_dir(at("b/hub"), &none), -ENOTDIR);
    assert_null(none);
}

static void what_cannot_be_written_is_not_used(void **state)
{
    (void) state;
    if (geteuid() != 0)
        skip();
    make_dir("state");
    make_dir("a");
    make_dir("a/hub");
    make_dir("b");
    make_dir("b/hub");
    make_dir("b/modelmount");
    assert_int_equal(chown(at("state"), STRANGER, STRANGER), 0);
    setenv("XDG_STATE_HOME", at("state"), 1);
    char *path = NULL;
    int r[3];
    assert_int_equal(seteuid(STRANGER), 0);
    r[0] = places_state_dir(at("a/hub"), &path);
    free(path);
    r[1] = places_state_dir(at("b/hub"), &path);
    free(path);
    path = NULL;
    setenv("XDG_STATE_HOME", at("a"), 1);
    r[2] = places_state_dir(at("a/hub"), &path);
    assert_int_equal(seteuid(0), 0);
    assert_int_equal(r[0], 0);
    assert_int_equal(r[1], 0);
    assert_int_equal(r[2], -EACCES);
    assert_null(path);
    assert_int_equal(owner(at("state/modelmount")), STRANGER);
    assert_int_not_equal(access(at("a/modelmount"), F_OK), 0);
}

static void what_root_makes_belongs_to_whom_it_lies_with(void **state)
{
    (void) state;
    if (geteuid() != 0)
        skip();
    make_dir("user");
    assert_int_equal(chown(at("user"), STRANGER, OTHER), 0);
    assert_state_dir(at("user/.cache/huggingface/hub"), at("user/.cache/huggingface/modelmount"));
    assert_int_equal(owner(at("user/.cache")), STRANGER);
    assert_int_equal(owner(at("user/.cache/huggingface")), STRANGER);
    struct stat st;
    assert_int_equal(stat(at("user/.cache/huggingface/modelmount"), &st), 0);
    assert_int_equal(st.st_uid, STRANGER);
    assert_int_equal(st.st_gid, OTHER);
    assert_int_equal(owner(root), 0);
}

static void a_relative_xdg_state_home_is_ignored(void **state)
{
    (void) state;
    setenv("HOME", at("home"), 1);
    setenv("XDG_STATE_HOME", "state", 1);
    make_dir("hub");
    assert_int_equal(symlink("elsewhere", at("modelmount")), 0);
    _cleanup_free_ char *path = NULL;
    assert_int_equal(places_state_dir(at("hub"), &path), 0);
    const char *start = at("home/.local/state/modelmount/");
    assert_memory_equal(path, start, strlen(start));
    assert_int_not_equal(access("state", F_OK), 0);
}

static void disks_are_local(void **state)
{
    (void) state;
    assert_true(places_is_local(root));
    assert_true(places_is_local("/dev/shm"));
    assert_false(places_is_local(at("missing")));
}

#define TEST(test) cmocka_unit_test_setup_teardown(test, make_root, drop_root)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_hub_cache_is_where_the_library_has_it), TEST(values_are_expanded_as_python_does),
        TEST(a_home_that_is_not_set_is_looked_up),       TEST(under_sudo_the_cache_is_the_user_s),
        TEST(the_state_lies_beside_the_cache),           TEST(a_relative_cache_has_its_state_beside_it_too),
        TEST(another_file_system_is_not_beside),         TEST(what_is_not_ours_beside_the_cache_is_not_used),
        TEST(what_cannot_be_written_is_not_used),        TEST(what_root_makes_belongs_to_whom_it_lies_with),
        TEST(a_relative_xdg_state_home_is_ignored),      TEST(disks_are_local),
    };
    return cmocka_run_group_tests_name("places", tests, NULL, NULL);
}
