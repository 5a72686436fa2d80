// SPDX-License-Identifier: Apache-2.0
// What a mount says of itself, in words.
#ifndef CLI_STATUS_TEXT_H
#define CLI_STATUS_TEXT_H

#include <cjson/cJSON.h>

// Prints the object that .modelmount/status holds to stdout. What is not in it is left out or counts as nothing.
void status_text_print(const cJSON *status);

#endif
