/* stage/schedule.c: h.schedule "NAME" { ... }: the learning rate as a function of the update number.  Must not know optimizers.
 * Formulas: torch/optim/lr_scheduler.py, closed forms; where an external change of the rate would persist there, it does not here. */
#include "stage/classes.h"

#include <math.h>

enum { PER_EPOCH = 1, PER_UPDATE };
enum { MODE_MIN = 1, MODE_MAX };
enum { THRESHOLD_REL = 1, THRESHOLD_ABS };

/* One structure serves all: each class's table shows only the members it uses. */
typedef struct
{
  gint64        warmup;
  double        warmup_start;
  int           per;
  gint64        step_size;
  double        gamma;
  HeddleIntList milestones;
  gint64        t_max;
  double        eta_min;
  bool          periodic;
  double        start, end;
  double        pct_start, div_factor, final_div_factor, base_momentum, max_momentum;
  bool          cycle_momentum;
  int           mode, threshold_mode;
  double        factor, threshold, min_lr;
  gint64        patience, cooldown;
  /* state */
  gint64        per_epoch;
  double        best, plateau_factor;
  gint64        bad, cooling;
  gboolean      started, overrun;
} Schedule;

static const HeddleEnumValue units[] = { { PER_EPOCH, "epoch", "counts epochs" }, { PER_UPDATE, "update", "counts updates" }, { 0, NULL, NULL } };
static const HeddleEnumValue modes[] = { { MODE_MIN, "min", "smaller is better" }, { MODE_MAX, "max", "larger is better" }, { 0, NULL, NULL } };
static const HeddleEnumValue threshold_modes[] = { { THRESHOLD_REL, "rel", "a share of the best value" }, { THRESHOLD_ABS, "abs", "a difference" }, { 0, NULL, NULL } };

#define WARMUP \
  HEDDLE_INT (Schedule, warmup, 0, 0, G_MAXINT64, "updates over which the rate rises linearly first", .unit = "updates"), \
  HEDDLE_FLOAT (Schedule, warmup_start, 0, 0, 1, "factor that warm-up starts from; the first update has one step of the rise already")
#define PER HEDDLE_ENUM (Schedule, per, PER_EPOCH, units, "what is counted")
#define TOTAL(text) HEDDLE_INT (Schedule, t_max, 0, 1, G_MAXINT64, text, .unit = "updates", .word = "auto", .word_value = 0)

static const HeddleOption constant_options[] = { WARMUP, HEDDLE_OPTIONS_END };
static const HeddleOption step_options[] = {
  HEDDLE_INT (Schedule, step_size, 1, 1, G_MAXINT64, "epochs (or updates) from one drop to the next", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_FLOAT (Schedule, gamma, 0.1, 0, 1e6, "factor at each drop"), PER, WARMUP, HEDDLE_OPTIONS_END
};
static const HeddleOption multistep_options[] = {
  HEDDLE_INT_LIST (Schedule, milestones, NULL, 0, G_MAXINT64, "epochs (or updates) at which the rate drops, rising", .flags = HEDDLE_OPTION_REQUIRED),
  HEDDLE_FLOAT (Schedule, gamma, 0.1, 0, 1e6, "factor at each drop"), PER, WARMUP, HEDDLE_OPTIONS_END
};
static const HeddleOption cosine_options[] = {
  TOTAL ("updates of the fall; auto: all that are planned after warm-up"),
  HEDDLE_FLOAT (Schedule, eta_min, 0, 0, 1e6, "learning rate at the end; it is held from there on"),
  HEDDLE_BOOL (Schedule, periodic, FALSE, "climb again after t_max, as PyTorch does"), WARMUP, HEDDLE_OPTIONS_END
};
static const HeddleOption linear_options[] = {
  HEDDLE_FLOAT (Schedule, start, 1, 0, 1e6, "factor at the first update"), HEDDLE_FLOAT (Schedule, end, 0, 0, 1e6, "factor that is reached after t_max updates, and held"),
  TOTAL ("updates of the way; auto: all that are planned after warm-up"), WARMUP, HEDDLE_OPTIONS_END
};
static const HeddleOption one_cycle_options[] = {
  TOTAL ("updates of the cycle; auto: all that are planned"), HEDDLE_FLOAT (Schedule, pct_start, 0.3, 0, 1, "share of the cycle that rises"),
  HEDDLE_FLOAT (Schedule, div_factor, 25, 1, 1e9, "the optimizer's lr, which is the peak, divided by this is the first rate"),
  HEDDLE_FLOAT (Schedule, final_div_factor, 1e4, 1, 1e12, "the first rate divided by this is the last"),
  HEDDLE_BOOL (Schedule, cycle_momentum, FALSE, "move momentum against the rate"), HEDDLE_FLOAT (Schedule, base_momentum, 0.85, 0, 1, "momentum at the peak"),
  HEDDLE_FLOAT (Schedule, max_momentum, 0.95, 0, 1, "momentum at both ends"), HEDDLE_OPTIONS_END
};
static const HeddleOption plateau_options[] = {
  HEDDLE_ENUM (Schedule, mode, MODE_MIN, modes, "what better means"), HEDDLE_FLOAT (Schedule, factor, 0.1, 0, 0.999999, "factor when nothing improves"),
  HEDDLE_INT (Schedule, patience, 10, 0, 1000000, "evaluations without improvement that are waited through", .unit = "evaluations"),
  HEDDLE_FLOAT (Schedule, threshold, 1e-4, 0, 1e6, "smallest change that counts"), HEDDLE_ENUM (Schedule, threshold_mode, THRESHOLD_REL, threshold_modes, "what the threshold is measured in"),
  HEDDLE_INT (Schedule, cooldown, 0, 0, 1000000, "evaluations after a drop that are not counted", .unit = "evaluations"), HEDDLE_FLOAT (Schedule, min_lr, 0, 0, 1e6, "the rate never falls below this"),
  WARMUP, HEDDLE_OPTIONS_END
};

#define CLASS(id, nick, text) \
  const HeddleStageClass heddle_stage_##id = { .verb = "schedule", .variant = nick, .summary = text, .options = { id##_options, sizeof (HeddleOption) }, \
                                               .instance_size = sizeof (Schedule), .output = HEDDLE_PORT_SCHEDULE };
CLASS (constant, "constant", "The optimizer's rate, after warm-up if asked for")
CLASS (step, "step", "Drops by a factor every step_size epochs")
CLASS (multistep, "multistep", "Drops by a factor at given epochs")
CLASS (cosine, "cosine", "Falls along half a cosine: arXiv 1608.03983")
CLASS (linear, "linear", "Moves linearly from one factor to another")
CLASS (one_cycle, "one_cycle", "Rises to the optimizer's rate and falls far below: arXiv 1708.07120")
CLASS (plateau, "plateau", "Drops when the first metric (or the loss) has stopped improving")

static gint64
length_of (const Schedule *s, gint64 total)
{
  return s->t_max > 0 ? s->t_max : MAX (total - s->warmup, 1);
}

gboolean
heddle_schedule_validate (HeddleStage *stage, gint64 total, gint64 per_epoch, GError **error)
{
  Schedule *s = stage->self;
  gboolean ok = TRUE;
  s->per_epoch = MAX (per_epoch, 1);
  s->plateau_factor = 1;
  for (gsize i = 1; ok && i < s->milestones.n; i++)
    ok = s->milestones.items[i] > s->milestones.items[i - 1];
  if (!ok)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: option \"milestones\" must rise", stage->place);
  else if (total > 0 && s->warmup >= total)
    {
      g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_OPTION, "%s: warm-up of %" G_GINT64_FORMAT " updates is not shorter than the run of %" G_GINT64_FORMAT, stage->place, s->warmup, total);
      ok = FALSE;
    }
  return ok;
}

static double
anneal (double from, double to, double share)
{
  return to + (from - to) / 2 * (1 + cos (G_PI * share));
}

/* Two phases: up to update pct n - 1, down to update n - 1; the rate as factor of the peak. */
static HeddleScheduleFactors
one_cycle_at (Schedule *s, gint64 update, gint64 total, double base_lr)
{
  double n = (double) (s->t_max > 0 ? s->t_max : MAX (total, 1)), peak = s->pct_start * n - 1, last = n - 1, u = (double) update;
  double first = base_lr / s->div_factor, end = first / s->final_div_factor;
  HeddleScheduleFactors f = { .momentum = NAN };
  if (u > last && !s->overrun)
    {
      g_message ("one_cycle: more updates than its %g; the rate stays at its end", n);
      s->overrun = TRUE;
    }
  u = MIN (u, last);
  gboolean rising = u <= peak;
  double share = rising ? (peak > 0 ? u / peak : 1) : (last > peak ? (u - peak) / (last - peak) : 1);
  double lr = rising ? anneal (first, base_lr, share) : anneal (base_lr, end, share);
  f.lr = base_lr > 0 ? lr / base_lr : 1;
  if (s->cycle_momentum)
    f.momentum = rising ? anneal (s->max_momentum, s->base_momentum, share) : anneal (s->base_momentum, s->max_momentum, share);
  return f;
}

static double
drops_at (const Schedule *s, gint64 update, gboolean multistep)
{
  gint64 count = s->per == PER_EPOCH ? update / MAX (s->per_epoch, 1) : update, drops = multistep ? 0 : count / s->step_size;
  for (gsize i = 0; multistep && i < s->milestones.n; i++)
    drops += count >= s->milestones.items[i];
  return pow (s->gamma, (double) drops);
}

static double
cosine_at (const Schedule *s, gint64 update, gint64 total, double base_lr)
{
  double n = (double) length_of (s, total), u = (double) update, low = base_lr > 0 ? s->eta_min / base_lr : 0;
  return low + (1 - low) / 2 * (1 + cos (G_PI * (s->periodic ? u : MIN (u, n)) / n));
}

HeddleScheduleFactors
heddle_schedule_at (HeddleStage *stage, gint64 update, gint64 total, double base_lr)
{
  Schedule *s = stage->self;
  HeddleScheduleFactors f = { 1, NAN };
  const HeddleStageClass *class = stage->class;
  gint64 after = update - s->warmup;
  if (class == &heddle_stage_one_cycle)
    f = one_cycle_at (s, update, total, base_lr);
  else if (after < 0)
    f.lr = s->warmup_start + (1 - s->warmup_start) * (double) (update + 1) / (double) s->warmup;
  else if (class == &heddle_stage_step || class == &heddle_stage_multistep)
    f.lr = drops_at (s, update, class == &heddle_stage_multistep);
  else if (class == &heddle_stage_cosine)
    f.lr = cosine_at (s, after, total, base_lr);
  else if (class == &heddle_stage_linear)
    f.lr = s->start + (s->end - s->start) * MIN (1, (double) after / (double) length_of (s, total));
  else if (class == &heddle_stage_plateau)
    f.lr = MAX (s->plateau_factor, base_lr > 0 ? s->min_lr / base_lr : 0);
  return f;
}

/* ReduceLROnPlateau.step () */
gboolean
heddle_schedule_report (HeddleStage *stage, double metric)
{
  Schedule *s = stage->self;
  gboolean dropped = FALSE;
  if (stage->class == &heddle_stage_plateau)
    {
      double margin = s->threshold_mode == THRESHOLD_REL ? s->threshold * s->best : s->threshold;
      gboolean better = !s->started || (s->mode == MODE_MIN ? metric < s->best - margin : metric > s->best + margin);
      s->best = better ? metric : s->best;
      s->started = TRUE;
      s->bad = better ? 0 : s->bad + 1;
      if (s->cooling > 0)
        {
          s->cooling--;
          s->bad = 0;
        }
      if (s->bad > s->patience)
        {
          s->plateau_factor *= s->factor;
          s->cooling = s->cooldown;
          s->bad = 0;
          dropped = TRUE;
        }
    }
  return dropped;
}
