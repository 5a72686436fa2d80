// SPDX-License-Identifier: Apache-2.0
// `modelmount mount`: checks, then serves in this process (-f) or in one of its own that outlives this one.
#include "cache/log.h"
#include "cache/util.h"
#include "cli/commands.h"
#include "cli/mountpoint.h"
#include "cli/options.h"
#include "cli/source.h"
#include "fs/session.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const char help[] = "Usage: modelmount [mount] [OPTIONS] [SOURCE] MOUNTPOINT\n"
                           "\n"
                           "Mounts SOURCE at MOUNTPOINT, goes to the background and returns once the mount is\n"
                           "live. What is not on disk is fetched from the Hub when it is read. SOURCE is\n"
                           "\n"
                           "  a directory         a hub cache, and the Hub behind it\n"
                           "  hf://[datasets/|spaces/|kernels/]ID[@REVISION][/FOLDER]\n"
                           "                      one repo, or a folder of it, its files at the root\n"
                           "  https://…           the same, by the address that a browser shows\n"
                           "  nothing             the default hub cache, by HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE,\n"
                           "                      HF_HOME and XDG_CACHE_HOME, else ~/.cache/huggingface/hub\n"
                           "                      (in fstab: default, none or modelmount)\n"
                           "\n"
                           "  -f, --foreground    stay, log to stderr; Ctrl-C unmounts\n"
                           "  -o, --options LIST  mount options, divided by commas (see below)\n"
                           "  -v, --verbose       log more; twice: details too\n"
                           "  -h, --help          print this\n"
                           "\n"
                           "      --offline       never ask the Hub (or HF_HUB_OFFLINE=1)\n"
                           "      --endpoint URL  the Hub's address (default: HF_ENDPOINT, else\n"
                           "                      https://huggingface.co)\n"
                           "      --cache-dir DIR the hub cache, where SOURCE is no directory\n"
                           "      --state-dir DIR keep the index and what is fetched in part there\n"
                           "      --connections N to the Hub at once, 1 to 64 (default: 16)\n"
                           "      --timeout S     a request ends after so many seconds without a byte (default: 15)\n"
                           "      --ref-ttl S     a branch is asked for again after so many seconds (default: 60)\n"
                           "      --no-publish    do not add whole files to the cache\n"
                           "\n"
                           "The token is that of HF_TOKEN or of `hf auth login`; it is no option.\n"
                           "\n"
                           "Mount options:\n"
                           "  offline, endpoint=, cache_dir=, state_dir=, connections=, timeout=, ref_ttl=,\n"
                           "  nopublish           as above, for fstab\n"
                           "  allow_other         let other users in\n"
                           "  uid=USER            owner shown for all files (default: who mounts)\n"
                           "  gid=GROUP           group shown for all files (default: of who mounts)\n"
                           "  umask=OCTAL         permissions taken away from 0666 and 0777 (default: 022)\n"
                           "  mtime=SECONDS       one time for all files (default: SOURCE_DATE_EPOCH, else the\n"
                           "                      commit's)\n"
                           "  xattr               give files the attributes user.modelmount.*\n"
                           "  nonempty            mount even over a directory that is not empty\n"
                           "  noindex             keep the index in memory\n"
                           "  nopassthrough       read through the daemon even where the kernel could do without\n"
                           "  nosuid, nodev, noexec, default_permissions\n"
                           "                      as in mount(8)\n";

// The user on whose behalf root runs, NULL if there is none.
static const struct passwd *sudo_user(void)
{
    const char *name = geteuid() == 0 ? getenv("SUDO_USER") : NULL;
    const struct passwd *user = name ? getpwnam(name) : NULL;
    return user && user->pw_uid != 0 ? user : NULL;
}

static void settle_owner(struct options *options)
{
    const struct passwd *user = sudo_user();
    if (!user)
        return;
    if (!options->source && !options->uid_given)
        options->session.uid = user->pw_uid;
    if (!options->source && !options->gid_given)
        options->session.gid = user->pw_gid;
    if (!options->session.allow_other)
        log_warning("note: mounted by root, so that only root can look into it: add -o "
                    "allow_other for %s",
                    user->pw_name);
}

struct daemon {
    int pipe; // the waiting parent's: one byte, 'y' or 'n'
};

static void detach(void)
{
    setsid();
    if (chdir("/") < 0)
        log_warning("/: %s", strerror(errno));
    log_use_syslog(true);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        dup2(null, fd);
    if (null > STDERR_FILENO)
        close(null);
}

static void report(void *userdata, int error)
{
    struct daemon *daemon = userdata;
    if (error == 0)
        detach();
    // Nobody reads when the parent was killed; the mount stays.
    ssize_t n = write(daemon->pipe, error == 0 ? "y" : "n", 1);
    (void) n;
    close(daemon->pipe);
    daemon->pipe = -1;
}

static void report_nothing(void *userdata, int error)
{
    (void) userdata;
    (void) error;
}

// Closes all that the caller left open, so that nobody waits for the end of a pipe that the daemon holds.
static void close_inherited(int keep)
{
    if (keep > STDERR_FILENO + 1)
        close_range(STDERR_FILENO + 1, (unsigned) keep - 1, 0);
    close_range((unsigned) keep + 1, ~0U, 0);
}

static int wait_for_daemon(pid_t child, int pipe, const char *mountpoint)
{
    char answer;
    ssize_t n;
    do
        n = read(pipe, &answer, 1);
    while (n < 0 && errno == EINTR);
    if (n == 1 && answer == 'y')
        return EXIT_SUCCESS;
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (n != 1 && WIFSIGNALED(status))
        log_error("%s: not mounted: the daemon died: %s", mountpoint, strsignal(WTERMSIG(status)));
    else if (n != 1)
        log_error("%s: not mounted: the daemon ended before the mount was live", mountpoint);
    return EXIT_FAILURE;
}

static int run_in_background(const struct session_options *session)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) {
        log_error("pipe: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    pid_t child = fork();
    if (child < 0) {
        log_error("fork: %s", strerror(errno));
        return EXIT_FAILURE;
    }
    if (child > 0) {
        close(ends[1]);
        return wait_for_daemon(child, ends[0], session->mountpoint);
    }
    close_inherited(ends[1]);
    signal(SIGPIPE, SIG_IGN);
    struct daemon daemon = { .pipe = ends[1] };
    return session_run(session, report, &daemon);
}

// With its parents. `dir` is absolute.
static void make_state_dir(char *dir)
{
    for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(dir, 0700);
        *slash = '/';
    }
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        log_warning("%s: cannot be made, so the index stays in memory: %s", dir, strerror(errno));
}

static int mount_with(struct options *options)
{
    _cleanup_free_ char *mountpoint = NULL;
    _cleanup_free_ char *cache = NULL;
    int r = mountpoint_resolve(options->session.mountpoint, &mountpoint);
    if (r == 0)
        r = source_find(options->source, mountpoint, &cache);
    if (r == 0)
        r = mountpoint_check(mountpoint, options->session.nonempty);
    if (r == 0)
        r = source_check(cache, !options->uri);
    if (r != 0)
        return r;
    settle_owner(options);
    if (options->state_dir)
        make_state_dir(options->state_dir);
    options->session.mountpoint = mountpoint;
    options->session.cache_path = cache;
    if (options->session.foreground)
        return session_run(&options->session, report_nothing, NULL);
    return run_in_background(&options->session);
}

int mount_main(int argc, char **argv)
{
    struct options options;
    int r = options_parse(argc, argv, &options);
    if (options.verbosity > 0)
        log_set_level(options.verbosity > 1 ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    if (r == 0 && options.help)
        fputs(help, stdout);
    else if (r == 0)
        r = mount_with(&options);
    options_free(&options);
    return r;
}
