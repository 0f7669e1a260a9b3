#!/usr/bin/env bash
# The commit figures of two builds, in turns: another one's, and this tree's. Only the quorum that is
# measured runs, and begins with nothing each time; medians of the rounds are printed.
#
#   benches/pairs.sh OTHER [ROUNDS] [SECONDS]  OTHER: a ringraft binary; 5 rounds of 3 seconds
#
# Needs the release build; uses a folder of its own under target/, ports 17600 to 17622, and stops
# everything it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
other=$(realpath "$1") rounds=${2:-5} seconds=${3:-3}
work=$PWD/target/pairs
source benches/rounds.sh
ours=$ringraft
rm -rf "$work"
mkdir -p "$work"
finish() {
    stop_all
    rm -rf "$work/quorum"
}
trap finish EXIT

port=17600
at="--endpoints $(endpoints $port)"
load="--value-bytes 128 --keys 10000 --seconds $seconds"
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    # Who comes first takes turns, too.
    builds="before after"
    [ $((round % 2)) = 0 ] || builds="after before"
    for build in $builds; do
        if [ "$build" = before ]; then ringraft=$other; else ringraft=$ours; fi
        cluster quorum $port
        note_cost "$build-commit1" quorum commit $at --outstanding 1 $load
        note_cost "$build-commit1000" quorum commit $at --outstanding 1000 $load
        note "$build-read1" read $at --outstanding 1 $load
        note "$build-read1000" read $at --outstanding 1000 $load
        stop quorum
        rm -rf "$work/quorum"
        cluster quorum $port --shards 2 --groups 16
        note_cost "$build-groups16" quorum commit $at --outstanding 1000 --groups 16 $load
        stop quorum
        rm -rf "$work/quorum"
    done
done

printf '| %-44s | %10s | %10s | %6s |\n' "" before after ratio --- --- --- ---
# row WHAT FIGURE FIELD
row() {
    local a b
    a=$(median "after-$2" "$3") b=$(median "before-$2" "$3")
    printf '| %-44s | %10s | %10s | %6s |\n' "$1" "$b" "$a" "$(ratio "$a" "$b")"
}
row "commit, 1 outstanding, p50, us" commit1 p50
row "processor time of three nodes for each, us" commit1.cost cpu_us
row "commit, 1,000 outstanding, /s" commit1000 ops_per_s
row "processor time of three nodes for each, us" commit1000.cost cpu_us
row "the same over 16 groups on 2 shards, /s" groups16 ops_per_s
row "processor time of three nodes for each, us" groups16.cost cpu_us
row "linearizable read, 1 outstanding, p50, us" read1 p50
row "linearizable reads, 1,000 outstanding, /s" read1000 ops_per_s
