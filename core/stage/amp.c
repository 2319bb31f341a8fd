/* stage/amp.c: h.amp { loss, ... }: mixed precision: which dtype, and whether the loss is scaled.  Must not know how casts are placed. */
#include "stage/classes.h"

enum { DTYPE_AUTO = 1, DTYPE_F32, DTYPE_F16, DTYPE_BF16 };
enum { SCALER_AUTO = 1, SCALER_ON, SCALER_OFF };

static const HeddleEnumValue dtypes[] = {
  { DTYPE_AUTO, "auto", "bf16 where the device computes it, f16 on an older GPU, else f32" }, { DTYPE_F32, "f32", "no autocast" }, { DTYPE_F16, "f16", "half precision" },
  { DTYPE_BF16, "bf16", "brain floating point" }, { 0, NULL, NULL },
};
static const HeddleEnumValue scalers[] = {
  { SCALER_AUTO, "auto", "on for f16" }, { SCALER_ON, "on", "scale the loss" }, { SCALER_OFF, "off", "do not scale the loss" }, { 0, NULL, NULL },
};

static const HeddleOption options[] = {
  HEDDLE_ENUM (HeddleAmpOptions, dtype, DTYPE_AUTO, dtypes, "low precision of what autocast covers"),
  HEDDLE_ENUM (HeddleAmpOptions, scaler, SCALER_AUTO, scalers, "dynamic loss scaling"),
  HEDDLE_FLOAT (HeddleAmpOptions, init_scale, 65536, 1e-30, 1e30, "loss scale at the start"),
  HEDDLE_FLOAT (HeddleAmpOptions, growth_factor, 2, 1.000001, 1e6, "factor after growth_interval good updates"),
  HEDDLE_FLOAT (HeddleAmpOptions, backoff_factor, 0.5, 1e-6, 0.999999, "factor after a skipped update"),
  HEDDLE_FLOAT (HeddleAmpOptions, min_scale, 1, 0, 1e30, "the scale never backs off below this"),
  HEDDLE_INT (HeddleAmpOptions, growth_interval, 2000, 1, G_MAXINT32, "good updates in a row before the scale grows", .unit = "updates"),
  HEDDLE_INT (HeddleAmpOptions, max_skips, 20, 0, G_MAXINT32, "updates skipped in a row after which the run stops with a diagnosis; 0 = never", .unit = "updates"),
  HEDDLE_OPTIONS_END
};

void
heddle_amp_resolve (HeddleStage *amp, HeddleDevice *device, HeddleAmp *result)
{
  const HeddleAmpOptions *o = amp->self;
  int dtype = o->dtype;
  const char *why = "as asked for";
  gboolean gpu = device && g_str_has_prefix (device->name, "cuda");
  if (dtype == DTYPE_AUTO && device && device->iface->computes (device, HEDDLE_BF16))
    {
      dtype = DTYPE_BF16;
      why = "auto: the device computes bf16";
    }
  else if (dtype == DTYPE_AUTO && gpu && device->iface->computes (device, HEDDLE_F16))
    {
      dtype = DTYPE_F16;
      why = "auto: the device computes f16 but not bf16";
    }
  else if (dtype == DTYPE_AUTO)
    {
      dtype = DTYPE_F32;
      why = "auto: this device gains nothing from 16 bits; name a dtype to have it all the same";
    }
  else if (device && dtype != DTYPE_F32 && !device->iface->computes (device, dtype == DTYPE_F16 ? HEDDLE_F16 : HEDDLE_BF16))
    why = "as asked for: 16-bit storage, computed in f32 on this device";
  *result = (HeddleAmp) { .low = dtype == DTYPE_F16 ? HEDDLE_F16 : dtype == DTYPE_BF16 ? HEDDLE_BF16 : 0, .options = o };
  result->scaling = o->scaler == SCALER_ON || (o->scaler == SCALER_AUTO && dtype == DTYPE_F16);
  result->why = g_strdup_printf ("%s (%s)%s", dtype == DTYPE_F16 ? "f16" : dtype == DTYPE_BF16 ? "bf16" : "f32", why, result->scaling ? ", loss scaled" : "");
}

/* The loss passes through: casts are placed while the model is emitted, the scale enters with the gradient's seed. */
static gboolean
emit_amp (HeddleStage *stage, HeddleEmit *emit, HeddlePort *const *in, guint n_in, GArray *out, GError **error)
{
  (void) stage;
  (void) emit;
  (void) n_in;
  (void) error;
  HeddlePort *port = heddle_port_add (out, HEDDLE_PORT_LOSS, "loss");
  port->value = in[0]->value;
  port->weight = in[0]->weight;
  return TRUE;
}

static const HeddlePortKind inputs[] = { HEDDLE_PORT_LOSS };

const HeddleStageClass heddle_stage_amp = {
  .verb = "amp", .summary = "Mixed precision: 16-bit activations, f32 master weights, loss scaling", .options = { options, sizeof (HeddleOption) },
  .instance_size = sizeof (HeddleAmpOptions), .min_inputs = 1, .max_inputs = 1, .input_kinds = inputs, .output = HEDDLE_PORT_LOSS, .emit = emit_amp,
};
