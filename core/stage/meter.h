/* stage/meter.h: how a thread spent a stretch of time: blocked, computing, or ready without a core to run on.
 * Must not know what the thread did. */
#ifndef HEDDLE_STAGE_METER_H
#define HEDDLE_STAGE_METER_H

#include <glib.h>

G_BEGIN_DECLS

typedef enum { HEDDLE_METER_BLOCKED = 0, HEDDLE_METER_COMPUTING, HEDDLE_METER_NO_CORE, HEDDLE_METER_PARTS } HeddleMeterPart;

typedef struct
{
  int    file;                     /* the thread's /proc schedstat, or -1 */
  gint64 wall, cpu, no_core;       /* ns, when the stretch began */
  gint64 length;                   /* ns, of the last stretch */
  double share[HEDDLE_METER_PARTS];/* of the last stretch that was looked at; sums to 1 */
  guint  skipped;
  gboolean looking;
} HeddleMeter;

/* On the thread to be measured.  SCHEDULER: also ask how long it stood ready without a core (a microsecond each time; not for the training thread). */
void heddle_meter_open  (HeddleMeter *meter, gboolean scheduler);
void heddle_meter_close (HeddleMeter *meter);
/* A stretch; short ones are looked at only now and then, the others take over the shares of the last one. */
void heddle_meter_start (HeddleMeter *meter);
void heddle_meter_stop  (HeddleMeter *meter);

G_END_DECLS

#endif
