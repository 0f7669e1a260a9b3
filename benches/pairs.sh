#!/usr/bin/env bash
# The commit figures of two builds, side by side: another one's, and this tree's. Their quorums run
# at the same time, idle but for the one that is measured; rounds are interleaved, medians printed.
#
#   benches/pairs.sh OTHER [ROUNDS] [SECONDS]  OTHER: a ringraft binary; 5 rounds of 3 seconds
#
# Needs the release build; uses a folder of its own under target/, ports 17600 to 17999, and stops
# everything it started. Twelve idle nodes beside each other cost something: compare the two, not
# with `figures.sh`.
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
    rm -rf "$work"/{before,after}-{one,many}
}
trap finish EXIT

declare -A port=([before-one]=17600 [before-many]=17700 [after-one]=17800 [after-many]=17900)
# use BUILD: whose commands and nodes are run from now on.
use() { if [ "$1" = before ]; then ringraft=$other; else ringraft=$ours; fi; }

for build in before after; do
    use "$build"
    cluster "$build-one" "${port[$build-one]}"
    cluster "$build-many" "${port[$build-many]}" --shards 2 --groups 16
done
load="--value-bytes 128 --keys 10000 --seconds $seconds"
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    for figure in commit1 commit1000 groups16 read1 read1000; do
        # Who comes first takes turns, too.
        builds="before after"
        [ $((round % 2)) = 0 ] || builds="after before"
        for build in $builds; do
            use "$build"
            one="--endpoints $(endpoints "${port[$build-one]}")"
            many="--endpoints $(endpoints "${port[$build-many]}")"
            case $figure in
            commit1) note "$build-$figure" commit $one --outstanding 1 $load ;;
            commit1000) note "$build-$figure" commit $one --outstanding 1000 $load ;;
            groups16) note "$build-$figure" commit $many --outstanding 1000 --groups 16 $load ;;
            read1) note "$build-$figure" read $one --outstanding 1 $load ;;
            read1000) note "$build-$figure" read $one --outstanding 1000 $load ;;
            esac
        done
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
row "commit, 1,000 outstanding, /s" commit1000 ops_per_s
row "the same over 16 groups on 2 shards, /s" groups16 ops_per_s
row "linearizable read, 1 outstanding, p50, us" read1 p50
row "linearizable reads, 1,000 outstanding, /s" read1000 ops_per_s
