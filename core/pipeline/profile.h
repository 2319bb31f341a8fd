/* pipeline/profile.h: where the time of a step goes: sums by part for `bench`, spans and their file for `run --profile`.
 * Private to core/pipeline; must not know the run loop. */
#ifndef HEDDLE_PIPELINE_PROFILE_H
#define HEDDLE_PIPELINE_PROFILE_H

#include "base/trace.h"
#include "pipeline/pipeline.h"

#include <stdio.h>

G_BEGIN_DECLS

/* Zeroed: off. */
typedef struct
{
  gboolean     on;                           /* times are taken */
  double       seconds[HEDDLE_TIME_PARTS];   /* sums so far */
  /* of a trace; NULL and 0 without one */
  HeddleTrace *trace;
  HeddleTrack *track;                        /* the training thread's */
  gint64       limit;                        /* steps to trace */
  char        *path;
  FILE        *file;
  /* whose profiler gets a range for each stage, whether times are taken or not; NULL: has none */
  HeddleDevice *device;
  void        (*push) (HeddleDevice *device, const char *name);
  void        (*pop)  (HeddleDevice *device, const char *name);
} HeddleProfile;

/* The time at which stage NAME begins, for heddle_profile_end (); 0 when off. */
static inline gint64
heddle_profile_begin (const HeddleProfile *profile, const char *name)
{
  if (profile->push)
    profile->push (profile->device, name);
  return G_UNLIKELY (profile->on) ? heddle_trace_clock () : 0;
}

/* From here on stages are ranges of DEVICE's profiler too, where it has such. */
void     heddle_profile_ranges (HeddleProfile *profile, HeddleDevice *device);

/* Opens FILE at once, so that one that cannot be written is an error before the first step. */
gboolean heddle_profile_open  (HeddleProfile *profile, const char *path, gint64 limit, guint spans_per_step, GError **error);
/* Each begin has its end, whatever came between.  Adds the time since START to PART (HEDDLE_TIME_PARTS: to none), and a span NAME of a stage, unless off. */
void     heddle_profile_end   (HeddleProfile *profile, HeddleTimePart part, const char *name, gint64 start, gint64 step);
/* Adds the last run of PLAN: each step to its operation's phase, a span for each step and each phase. */
void     heddle_profile_plan  (HeddleProfile *profile, HeddlePlan *plan, gint64 step);
void     heddle_profile_timing (HeddlePlan *plan, gboolean on);      /* PLAN may be NULL */
guint    heddle_profile_n_steps (HeddlePlan *plan);                  /* of PLAN, which may be NULL */
/* Writes the trace file, once; later calls and an untraced profile do nothing.  TITLE names the process. */
gboolean heddle_profile_write (HeddleProfile *profile, const char *title, GError **error);
void     heddle_profile_clear (HeddleProfile *profile);

G_END_DECLS

#endif
