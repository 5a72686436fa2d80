// SPDX-License-Identifier: Apache-2.0
// The words of -o, which are also what the long options of `mount` stand for.
#ifndef CLI_OPTION_WORDS_H
#define CLI_OPTION_WORDS_H

#include "cli/options.h"

// Takes what follows -o: "word,word=value". As in libfuse, a backslash takes the next character as it is. 0, or
// EXIT_USAGE with the message written.
int option_words_apply(struct options *options, const char *list);

// The same for one known word, which the user wrote as the long option --`name`. `value` is NULL where it takes none.
int option_words_apply_long(struct options *options, const char *name, const char *word, const char *value);

// Says that a token is no option; `name` is what the user wrote. Returns EXIT_USAGE.
int option_words_refuse_token(const char *name);

#endif
