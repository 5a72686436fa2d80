// SPDX-License-Identifier: Apache-2.0
// The user's token, found as huggingface_hub finds it (utils/_auth.py, constants.py).
#ifndef CACHE_HUB_TOKEN_H
#define CACHE_HUB_TOKEN_H

#include <stdbool.h>

// Whether an environment variable says yes, as huggingface_hub reads it: 1, ON, YES, TRUE in any case.
bool hub_variable_is_true(const char *name);

// HF_TOKEN, else HUGGING_FACE_HUB_TOKEN, else the first line of the file HF_TOKEN_PATH or $HF_HOME/token, read again at
// each call; without the spaces around it. None with HF_HUB_DISABLE_IMPLICIT_TOKEN, and none if it holds what cannot
// stand in a header. The caller frees *ret_token, which is NULL if there is none. 0, -ENOMEM. Thread-safe as long as
// nobody changes the environment.
int hub_token_find(char **ret_token);

#endif
