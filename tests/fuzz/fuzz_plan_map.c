// SPDX-License-Identifier: Apache-2.0
// plan_map_read() on any bytes, as the start of a file of any size: its parts are in order and within the file, what it
// asks for is enough or more than before, and what is planned with it stays within the file.
#include "cache/plan.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void check_reads(const struct plan_map *map, int64_t size)
{
    struct plan_reader reader = { 0 };
    int64_t step = size / 61 + 1, last = 0;
    for (int64_t offset = 0, next; offset < size; offset = next) {
        int64_t from, to;
        next = step < size - offset ? offset + step : size;
        if (plan_map_part(map, offset, &from, &to)) {
            check(from >= last && from <= offset && to > offset && to <= size);
            last = from;
            if (to < next)
                next = to; // on to the neighbour
        }
        struct plan_want want = plan_read(&reader, map, size, offset, 4096);
        int64_t end = size - offset < 4096 ? size : offset + 4096;
        check(want.need_from >= 0 && want.need_from <= offset && want.need_to >= end && want.need_to <= size);
        check(want.ahead_from >= 0 && want.ahead_from <= want.ahead_to && want.ahead_to <= size);
    }
}

// The first byte says how much longer than its start the file is.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    int64_t file = (int64_t) (size - 1);
    file += data[0] < 16 ? data[0] : data[0] < 200 ? INT64_C(1) << data[0] % 62 : INT64_MAX - file;
    data++;
    size--;

    int64_t need, again;
    struct plan_map *map = plan_map_read(data, size, file, &need);
    if (!map) {
        check(need == 0 || (need > (int64_t) size && need <= file && need <= 16 * 1024 * 1024 + 8));
        return 0;
    }
    check(need > 0 && need <= (int64_t) size);
    check_reads(map, file);
    plan_map_free(map);

    uint8_t *exact = malloc((size_t) need);
    check(exact);
    memcpy(exact, data, (size_t) need);
    map = plan_map_read(exact, (size_t) need, file, &again);
    check(map && again == need);
    plan_map_free(map);
    map = plan_map_read(exact, (size_t) need - 1, file, &again);
    check(!map && (again == 0 || again >= need));
    free(exact);
    return 0;
}
