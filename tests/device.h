/* tests/device.h: which device the comparisons with a reference run on: HEDDLE_TEST_DEVICE, "cpu" by default.  Must not know devices. */
#ifndef HEDDLE_TESTS_DEVICE_H
#define HEDDLE_TESTS_DEVICE_H

#include <glib.h>

static inline const char *
test_device (void)
{
  const char *wish = g_getenv ("HEDDLE_TEST_DEVICE");
  return wish && *wish ? wish : "cpu";
}

#endif
