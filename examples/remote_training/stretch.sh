#!/usr/bin/env bash
# Train a recipe for some minutes, from where the last stretch ended.
#
# stretch.sh RECIPE PICTURES PARTS [MINUTES] [ARGUMENTS OF restorekit train]
#
# PARTS holds the run in files of 15 MB: what the last stretch left is taken up, and what this one
# leaves replaces it. The training ends by SIGTERM, at which it writes a checkpoint.
set -euo pipefail
recipe=$1 pictures=$2 parts=$3 minutes=${4:-9}
shift $(($# < 4 ? $# : 4))
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
mkdir -p "$parts"
if compgen -G "$parts/run.tar.*" >/dev/null; then
    (cd "$parts" && sha256sum --quiet --check run.sha256)
    cat "$parts"/run.tar.* | tar --extract --directory "$run"
fi
timeout --foreground --signal TERM "${minutes}m" \
    python -m restorekit train "$recipe" --data "$pictures" --output "$run/run" \
    --resume "$@" || (($? == 124))
rm -f "$parts"/run.*
tar --create --directory "$run" run | split --bytes 15M --numeric-suffixes --suffix-length 3 \
    - "$parts/run.tar."
(cd "$parts" && sha256sum run.tar.* >run.sha256)
