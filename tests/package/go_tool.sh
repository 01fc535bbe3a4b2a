#!/bin/sh
# Prints the path of a program that is built by the Go module proxy, once: go_tool.sh NAME PACKAGE@VERSION.
set -eu
# shellcheck source=tests/go_program.sh
. "$(dirname "$0")/../go_program.sh"
go_program "$1" "${2##*@}" "" / install "$2"
