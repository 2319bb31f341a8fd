#!/bin/sh
# Runs one test program and lets it print TAP: GLib's need to be told to.
case $1 in
  *.sh) exec sh "$@" ;;
  *) exec "$@" --tap -k ;;
esac
