// SPDX-License-Identifier: Apache-2.0
#include "cache/hub.h"

#include "cache/hub_call.h"
#include "cache/hub_token.h"
#include "cache/url.h"
#include "cache/util.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define DEFAULT_ENDPOINT "https://huggingface.co"
#define TIMEOUT_MS 15000
#define BUDGET_MS 60000
#define PAUSE_MS 500

// An http(s) address without a slash at its end.
static int find_endpoint(const char *given, char **ret_endpoint)
{
    const char *variable = getenv("HF_ENDPOINT");
    const char *text = given ? given : variable && *variable ? variable : DEFAULT_ENDPOINT;
    _cleanup_free_ char *host = url_host(text);
    if (!host || !strstr(text, "://") || strpbrk(text, "?#"))
        return -EINVAL;
    char *endpoint = strdup(text);
    if (!endpoint)
        return -ENOMEM;
    for (size_t len = strlen(endpoint); len > 0 && endpoint[len - 1] == '/'; len--)
        endpoint[len - 1] = '\0';
    *ret_endpoint = endpoint;
    return 0;
}

int hub_new(struct http *http, const struct hub_options *options, struct hub **ret_hub)
{
    struct hub *hub = calloc(1, sizeof *hub);
    if (!hub)
        return -ENOMEM;
    int r = find_endpoint(options->endpoint, &hub->endpoint);
    if (r < 0) {
        free(hub);
        return r;
    }
    hub->http = http;
    const char *offline = getenv("HF_HUB_OFFLINE");
    hub->offline =
        options->offline || hub_variable_is_true(offline && *offline ? "HF_HUB_OFFLINE" : "TRANSFORMERS_OFFLINE");
    hub->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : TIMEOUT_MS;
    hub->budget_ms = options->budget_ms > 0 ? options->budget_ms : BUDGET_MS;
    hub->pause_ms = options->pause_ms > 0 ? options->pause_ms : PAUSE_MS;
    if (getrandom(&hub->random, sizeof hub->random, 0) < 0)
        hub->random = (uint64_t) util_now_ms();
    hub->random |= 1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&hub->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&hub->lock, NULL);
    *ret_hub = hub;
    return 0;
}

static void end_calls(void *userdata)
{
    struct hub *hub = userdata;
    while (hub->calls) {
        struct hub_call *call = hub->calls;
        hub_error_set(&call->error, -ECANCELED, HUB_STOPPED, call->subject, "given up: the program ends");
        hub_call_finish(call);
    }
}

void hub_free(struct hub *hub)
{
    if (!hub)
        return;
    http_run(hub->http, end_calls, hub);
    while (hub->places) {
        struct hub_place *place = hub->places;
        hub->places = place->next;
        free(place->key);
        free(place->url);
        free(place);
    }
    pthread_cond_destroy(&hub->changed);
    pthread_mutex_destroy(&hub->lock);
    free(hub->endpoint);
    free(hub);
}

const char *hub_endpoint(const struct hub *hub)
{
    return hub->endpoint;
}

bool hub_is_offline(const struct hub *hub)
{
    return hub->offline;
}

int64_t hub_retries(const struct hub *hub)
{
    return hub->retries;
}
