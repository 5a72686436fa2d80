// SPDX-License-Identifier: Apache-2.0
#include "cli/option_values.h"

#include "cache/util.h"
#include "cli/address.h"
#include "cli/source.h"

#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>

#define MTIME_MAX 253402300799 // the last second of the year 9999
#define CONNECTIONS_MAX 64
#define TIMEOUT_MIN_MS 100
#define TIMEOUT_MAX_MS (3600 * 1000)
#define REF_TTL_MAX_MS (1000000 * 1000)

static bool parse_number(const char *text, int base, int64_t max, int64_t *ret_number)
{
    if (!isdigit((unsigned char) *text))
        return false;
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, base);
    if (errno != 0 || *end || number > max)
        return false;
    *ret_number = number;
    return true;
}

// "30", "0.5": in seconds; *ret_ms in milliseconds.
static bool parse_seconds(const char *text, int min_ms, int max_ms, int *ret_ms)
{
    char *end;
    if (!isdigit((unsigned char) *text) || text[strspn(text, "0123456789.")])
        return false;
    double ms = strtod(text, &end) * 1000 + 0.5;
    if (*end || ms < min_ms || ms >= max_ms + 1.0)
        return false;
    *ret_ms = (int) ms;
    return true;
}

bool option_set_uid(struct options *options, const char *value)
{
    int64_t number;
    const struct passwd *user = getpwnam(value);
    if (user)
        options->session.uid = user->pw_uid;
    else if (parse_number(value, 10, UINT32_MAX - 1, &number))
        options->session.uid = (uid_t) number;
    else
        return false;
    options->uid_given = true;
    return true;
}

bool option_set_gid(struct options *options, const char *value)
{
    int64_t number;
    const struct group *group = getgrnam(value);
    if (group)
        options->session.gid = group->gr_gid;
    else if (parse_number(value, 10, UINT32_MAX - 1, &number))
        options->session.gid = (gid_t) number;
    else
        return false;
    options->gid_given = true;
    return true;
}

bool option_set_umask(struct options *options, const char *value)
{
    int64_t number;
    if (!parse_number(value, 8, 0777, &number))
        return false;
    options->session.umask = (mode_t) number;
    return true;
}

bool option_set_mtime(struct options *options, const char *value)
{
    return parse_number(value, 10, MTIME_MAX, &options->session.mtime);
}

// Replaces the string at `member` by `made`, which may be NULL for want of memory.
static bool take_string(char **member, char *made)
{
    if (!made)
        return false;
    free(*member);
    *member = made;
    return true;
}

bool option_set_state_dir(struct options *options, const char *value)
{
    if (!*value || !take_string(&options->state_dir, source_absolute(value)))
        return false;
    options->session.state_dir = options->state_dir;
    return true;
}

bool option_set_cache_dir(struct options *options, const char *value)
{
    return *value && !strstr(value, "://") && take_string(&options->cache_dir, source_absolute(value));
}

bool option_set_endpoint(struct options *options, const char *value)
{
    if (!address_is_endpoint(value) || !take_string(&options->endpoint, strdup(value)))
        return false;
    options->session.endpoint = options->endpoint;
    return true;
}

bool option_set_connections(struct options *options, const char *value)
{
    int64_t number;
    if (!parse_number(value, 10, CONNECTIONS_MAX, &number) || number == 0)
        return false;
    options->session.connections = (int) number;
    return true;
}

bool option_set_timeout(struct options *options, const char *value)
{
    return parse_seconds(value, TIMEOUT_MIN_MS, TIMEOUT_MAX_MS, &options->session.timeout_ms);
}

bool option_set_ref_ttl(struct options *options, const char *value)
{
    return parse_seconds(value, 0, REF_TTL_MAX_MS, &options->session.ref_ttl_ms);
}
