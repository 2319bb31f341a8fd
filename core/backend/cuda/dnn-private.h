/* cuda/dnn-private.h: what the files that call cuDNN share.
 * Must not know programs.  Private to dnn*.c: cuDNN's types end here. */
#ifndef HEDDLE_CUDA_DNN_PRIVATE_H
#define HEDDLE_CUDA_DNN_PRIVATE_H

#include "dnn.h"

#include <cudnn.h>

typedef cudnnBackendDescriptor_t Descriptor;

struct _CudaDnn
{
  cudnnHandle_t handle;                /* NULL: deviceless */
  gpointer      stream;                /* the handle's */
  Descriptor    properties;            /* deviceless: the DEVICEPROP */
  char         *device;                /* its name, or the document */
  HeddleFlags   flags;
  char         *reason;
  gint64        timed;                 /* shapes that took part of the benchmark's budget */
  guint64       built;
};

typedef struct { gint64 uid; DnnTensorKind kind; gsize offset; float value; gboolean cleared; gsize bytes; } DnnBinding;

struct _CudaDnnPlan
{
  Descriptor  plan, pack;              /* PACK holds the addresses of the last run */
  gpointer    address[DNN_MAX_TENSORS], workspace;
  gint32      n;
  DnnBinding  binding[DNN_MAX_TENSORS];
  gsize       scratch, total;          /* bytes in front of cuDNN's own workspace; with it */
  char       *text;
};

/* ---- dnn-descriptors.c: descriptors made in a row; the first failure sticks, later calls do nothing and give NULL ---- */
typedef struct { GPtrArray *all; cudnnStatus_t status; char *reason; } DnnMaker;
void          dnn_maker_init   (DnnMaker *m);
void          dnn_maker_clear  (DnnMaker *m);          /* destroys what was made and not taken */
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (DnnMaker, dnn_maker_clear)
Descriptor    dnn_make         (DnnMaker *m, cudnnBackendDescriptorType_t type);
void          dnn_set          (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void *values);
void          dnn_set_link     (DnnMaker *m, Descriptor d, cudnnBackendAttributeName_t name, Descriptor to);
gboolean      dnn_finish       (DnnMaker *m, Descriptor d);
Descriptor    dnn_take         (DnnMaker *m, Descriptor d);      /* M no longer owns D */
const char   *dnn_status_text  (cudnnStatus_t status, char *buffer, gsize size);   /* cuDNN's own words about the last failure of this thread */
/* The finalised OPERATIONGRAPH of GRAPH. */
Descriptor    dnn_lower        (DnnMaker *m, cudnnHandle_t handle, const CudaDnnGraph *graph);

/* ---- dnn-benchmark.c ---- */
/* Index of the fastest of N plans, timed on the device with memory of their own, and its time; 0 with time 0 when none could be timed (no memory for it).
 * -1 with an error: a candidate broke the device. */
gint          dnn_fastest      (CudaDnn *dnn, const CudaDnnGraph *graph, CudaDnnPlan *const *plans, guint n, double *microseconds, GError **error);

#endif
