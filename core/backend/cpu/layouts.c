/* cpu/layouts.c: descriptors of layouts and conversions between them.  Must not know operations. */
#include "cpu.h"

const Layout cpu_plain = { .kind = LAYOUT_PLAIN }, cpu_blocked = { .kind = LAYOUT_BLOCKED };

gboolean
cpu_layout_equal (const Layout *a, const Layout *b)
{
  return a == b || (a->kind == b->kind && (a->kind != LAYOUT_WEIGHT || dnnl_memory_desc_equal (&a->md, &b->md)));
}

gboolean
cpu_blockable (const CpuDevice *device, const HeddleShape *shape)
{
  return shape->rank == 4 && shape->size[1] % device->block == 0;
}

gboolean
cpu_same_bytes (const Layout *a, const Layout *b, const HeddleShape *shape)
{
  gboolean pixel = shape->rank == 4 && shape->size[2] * shape->size[3] == 1 && a->kind != LAYOUT_WEIGHT && b->kind != LAYOUT_WEIGHT;
  return pixel || cpu_layout_equal (a, b);
}

dnnl_data_type_t
cpu_dnnl_type (HeddleDtype dtype)
{
  dnnl_data_type_t type = dnnl_data_type_undef;
  switch (dtype)
    {
    case HEDDLE_F32: type = dnnl_f32; break;
    case HEDDLE_F16: type = dnnl_f16; break;
    case HEDDLE_BF16: type = dnnl_bf16; break;
    case HEDDLE_U8: type = dnnl_u8; break;
    case HEDDLE_I32: type = dnnl_s32; break;
    case HEDDLE_I64: break;
    }
  return type;
}

gboolean
cpu_layout_md (const CpuDevice *device, const Layout *layout, HeddleDtype dtype, const HeddleShape *shape, dnnl_memory_desc_t *md)
{
  static const dnnl_format_tag_t tags[] = { dnnl_a, dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd, dnnl_abcde, dnnl_abcdef };
  dnnl_status_t status = dnnl_success;
  dnnl_dims_t dims = { 1 };
  for (gint32 i = 0; i < shape->rank; i++)
    dims[i] = shape->size[i];
  if (layout->kind == LAYOUT_WEIGHT)
    {
      *md = layout->md;
      md->data_type = cpu_dnnl_type (dtype);
    }
  else
    status = dnnl_memory_desc_init_by_tag (md, MAX (shape->rank, 1), dims, cpu_dnnl_type (dtype),
                                           layout->kind == LAYOUT_PLAIN ? tags[shape->rank] : device->block == 16 ? dnnl_nChw16c : dnnl_nChw8c);
  return status == dnnl_success;
}

char *
cpu_layout_name (const CpuDevice *device, const Layout *layout)
{
  char *name = NULL;
  if (layout->kind == LAYOUT_PLAIN)
    name = g_strdup ("plain");
  else if (layout->kind == LAYOUT_BLOCKED)
    name = g_strdup_printf ("nChw%dc", device->block);
  else
    {
      const dnnl_blocking_desc_t *b = &layout->md.format_desc.blocking;
      GString *text = g_string_new ("weight");
      for (int i = 0; i < b->inner_nblks; i++)
        g_string_append_printf (text, "%s%d%c", i ? "" : ":", (int) b->inner_blks[i], (char) ('a' + b->inner_idxs[i]));
      name = g_string_free (text, FALSE);
    }
  return name;
}

gboolean
cpu_dnnl_check (dnnl_status_t status, const char *call, const HeddleOp *op, GError **error)
{
  static const char *const names[] = { "success", "out of memory", "invalid arguments", "unimplemented", "iterator ends", "runtime error", "not required" };
  if (status != dnnl_success)
    g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "%s%s%s%s: oneDNN says \"%s\"\nhint: %s", op ? op->info->name : "", op ? " " : "", op ? op->name : "", call,
                 (guint) status < G_N_ELEMENTS (names) ? names[status] : "unknown status",
                 status == dnnl_out_of_memory ? "use a smaller batch" : "set ONEDNN_VERBOSE=1 to see the call");
  return status == dnnl_success;
}

gboolean
cpu_reorder_now (CpuDevice *device, const dnnl_memory_desc_t *src_md, gpointer src, const dnnl_memory_desc_t *dst_md, gpointer dst, GError **error)
{
  dnnl_primitive_desc_t pd = NULL;
  dnnl_primitive_t reorder = NULL;
  dnnl_memory_t from = NULL, to = NULL;
  gboolean ok = cpu_dnnl_check (dnnl_memory_create (&from, src_md, device->engine, src), "dnnl_memory_create", NULL, error)
                && cpu_dnnl_check (dnnl_memory_create (&to, dst_md, device->engine, dst), "dnnl_memory_create", NULL, error)
                && cpu_dnnl_check (dnnl_reorder_primitive_desc_create (&pd, src_md, device->engine, dst_md, device->engine, NULL), "dnnl_reorder_primitive_desc_create", NULL, error)
                && cpu_dnnl_check (dnnl_primitive_create (&reorder, pd), "dnnl_primitive_create", NULL, error);
  if (ok)
    {
      dnnl_exec_arg_t args[] = { { DNNL_ARG_FROM, from }, { DNNL_ARG_TO, to } };
      ok = cpu_dnnl_check (dnnl_primitive_execute (reorder, device->stream, 2, args), "dnnl_primitive_execute", NULL, error)
           && cpu_dnnl_check (dnnl_stream_wait (device->stream), "dnnl_stream_wait", NULL, error);
    }
  dnnl_primitive_destroy (reorder);
  dnnl_primitive_desc_destroy (pd);
  dnnl_memory_destroy (from);
  dnnl_memory_destroy (to);
  return ok;
}
