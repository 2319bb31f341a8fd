# Pastes the public headers into the one that plugins include; inner includes between them are dropped.
BEGIN { print "/* heddle/plugin.h: everything a Heddle plugin needs.  Generated from the headers of core/; see docs/plugins.md. */"
        print "#ifndef HEDDLE_PLUGIN_H\n#define HEDDLE_PLUGIN_H\n" }
/^#include "/ { next }
{ print }
END { print "\n#endif" }
