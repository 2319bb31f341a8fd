/* pipeline/graph.h: the stage graph as the script describes it: nodes, links, options, and where in the script each was written.
 * Must not know Lua; building one touches no data, no device, and runs no plugin code. */
#ifndef HEDDLE_PIPELINE_GRAPH_H
#define HEDDLE_PIPELINE_GRAPH_H

#include "stage/stage.h"

G_BEGIN_DECLS

typedef struct _HeddleGraph HeddleGraph;
typedef struct _HeddleNode  HeddleNode;

/* What a script holds in its hands: a node's output (port NULL), one of its ports (batch.image), or a fact known only once data is open
 * (batch.label.classes: attribute "classes"; also "length", "shape"). */
typedef struct
{
  HeddleNode *node;
  const char *port;                /* interned or NULL */
  const char *attribute;           /* interned or NULL */
} HeddleRef;

typedef struct { char *key; HeddleRef ref; int line; } HeddleLink;

struct _HeddleNode
{
  HeddleGraph *graph;
  guint        index;              /* in graph->nodes: creation order, which is a topological order */
  char        *id;                 /* "prefetch", "model", or the script's id = "..."; unique */
  HeddleStage *stage;
  int          line;               /* script line of the verb */
  GPtrArray   *inputs;             /* HeddleLink *, key NULL */
  GPtrArray   *named;              /* HeddleLink *: "eval.data", "eval.accuracy", "log.1", "schedule" (train only) */
  GPtrArray   *deferred;           /* HeddleLink *: options that wait for a fact: key "classes" */
};

struct _HeddleGraph
{
  char           *script;          /* name for messages: "fashion-mnist.lua" */
  char           *base_dir;
  HeddleRegistry *registry;        /* borrowed */
  GPtrArray      *nodes;           /* HeddleNode *, owned */
  HeddleNode     *root;            /* the train node, once returned */
  HeddleFlags     flags;           /* h.flags */
  GHashTable     *flags_set;       /* names given */
  int             flags_line;      /* 0: no h.flags */
};

HeddleGraph *heddle_graph_new   (const char *script, const char *base_dir, HeddleRegistry *registry);
void         heddle_graph_free  (HeddleGraph *graph);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HeddleGraph, heddle_graph_free)

/* All errors name "script:line: stage: ".  VARIANT NULL for verbs without one. */
HeddleNode  *heddle_graph_add       (HeddleGraph *graph, const char *verb, const char *variant, int line, GError **error);
gboolean     heddle_node_set_id     (HeddleNode *node, const char *id, GError **error);           /* duplicates are refused, naming both lines */
gboolean     heddle_node_set        (HeddleNode *node, const char *name, GVariant *value, GError **error);
gboolean     heddle_node_defer      (HeddleNode *node, const char *name, HeddleRef fact, GError **error);
/* Kind and number of inputs are checked here; fields and shapes when compiled. */
gboolean     heddle_node_link       (HeddleNode *node, HeddleRef from, int line, GError **error);
gboolean     heddle_node_link_named (HeddleNode *node, const char *key, HeddleRef from, int line, GError **error);
/* Every input and REQUIRED option there?  Called by the script layer when a stage's table has been read. */
gboolean     heddle_node_complete   (HeddleNode *node, GError **error);
gboolean     heddle_graph_set_flags (HeddleGraph *graph, const char *name, GVariant *value, int line, GError **error);
gboolean     heddle_graph_finish    (HeddleGraph *graph, HeddleNode *root, GError **error);       /* root is a train stage; unused stages are warned about */
/* "prefetch.workers=8": by stage id, or "flags.tf32=true".  [cli] after the script ran. */
gboolean     heddle_graph_override  (HeddleGraph *graph, const char *assignment, GError **error);

/* (transfer full) Drawings of the stages as wired: text, dot, JSON. */
char        *heddle_graph_print     (HeddleGraph *graph);
char        *heddle_graph_dot       (HeddleGraph *graph);
char        *heddle_graph_json      (HeddleGraph *graph);

G_END_DECLS

#endif
