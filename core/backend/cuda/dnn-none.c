/* cuda/dnn-none.c: the backend built without cuDNN: there is no context, so nothing else is ever called.
 * Must not know more than dnn.h. */
#include "dnn.h"

gint
cuda_dnn_version (void)
{
  return 0;
}

CudaDnn *
cuda_dnn_new (const char *device, gboolean deviceless, const HeddleFlags *flags, GError **error)
{
  g_set_error (error, HEDDLE_ERROR, HEDDLE_ERROR_DEVICE, "built without cuDNN");
  return NULL;
}

void
cuda_dnn_free (CudaDnn *dnn)
{
}

CudaDnnPlan *
cuda_dnn_build (CudaDnn *dnn, CudaDnnGraph *graph, GError **error)
{
  g_free (graph);
  return NULL;
}

void
cuda_dnn_plan_free (CudaDnnPlan *plan)
{
}

const char *
cuda_dnn_reason (CudaDnn *dnn)
{
  return "built without cuDNN";
}

const char *
cuda_dnn_plan_text (const CudaDnnPlan *plan)
{
  return "";
}

gsize
cuda_dnn_workspace (const CudaDnnPlan *plan)
{
  return 0;
}

guint64
cuda_dnn_built (const CudaDnn *dnn)
{
  return 0;
}

gboolean
cuda_dnn_run (CudaDnn *dnn, CudaDnnPlan *plan, gpointer stream, const gpointer pointers[CUDA_DNN_N_UIDS], gpointer workspace, GError **error)
{
  g_return_val_if_reached (FALSE);
}
