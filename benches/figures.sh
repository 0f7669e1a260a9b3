#!/usr/bin/env bash
# The figures of README.md, measured in one run: three node processes and one client, 128-byte
# values, every write synced on a majority. Rounds are interleaved, medians are printed with the
# ratios that count: ours against the floor of the same round's neighbourhood.
#
#   benches/figures.sh [ROUNDS] [SECONDS]      default: 5 rounds of 3 seconds a figure
#
# Needs the release build; uses a folder of its own under target/, ports 17600 to 17822, and stops
# everything it started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${1:-5} seconds=${2:-3}
work=$PWD/target/figures
source benches/rounds.sh
rm -rf "$work"
mkdir -p "$work/floor"
finish() {
    stop_all
    rm -rf "$work/one" "$work/many" "$work/floor"
}
trap finish EXIT

cluster one 17600
cluster many 17700 --shards 2 --groups 16
one="--endpoints $(endpoints 17600)" many="--endpoints $(endpoints 17700)"
nodes=$(grep -o '"pid":[0-9]*' "$work/one.json" | cut -d: -f2)
idle=$(for pid in $nodes; do awk '/VmRSS/ { print $2 }' "/proc/$pid/status"; done | sort -g | tail -1)

load="--value-bytes 128 --keys 10000 --seconds $seconds"
for round in $(seq "$rounds"); do
    echo "round $round of $rounds" >&2
    note floor1 floor --dir "$work/floor" --outstanding 1 --seconds "$seconds"
    note commit1 commit $one --outstanding 1 $load
    note floor1000 floor --dir "$work/floor" --outstanding 1000 --seconds "$seconds"
    note commit1000 commit $one --outstanding 1000 --connections 1 $load
    note groups16 commit $many --outstanding 1000 --connections 1 --groups 16 $load
    note nosync1 floor --no-sync --outstanding 1 --seconds "$seconds"
    note read1 read $one --outstanding 1 $load
    note read1000 read $one --outstanding 1000 --connections 1 $load
done

row() { printf '| %-46s | %14s | %14s | %6s |\n' "$@"; }
row "" "ours" "the floor" "ratio"
row "---" "---" "---" "---"
a=$(median commit1 p50) b=$(median floor1 p50)
row "commit, 1 outstanding, p50, us" "$a" "$b" "$(ratio "$a" "$b")"
a=$(median commit1000 ops_per_s) b=$(median floor1000 ops_per_s)
row "commit, 1,000 outstanding, one connection, /s" "$a" "$b" "$(ratio "$a" "$b")"
c=$(median groups16 ops_per_s)
row "the same over 16 groups on 2 shards, /s" "$c" "($a)" "$(ratio "$c" "$a")"
a=$(median read1 p50) b=$(median nosync1 p50)
row "linearizable read, 1 outstanding, p50, us" "$a" "$b" "$(ratio "$a" "$b")"
a=$(median read1000 ops_per_s)
row "linearizable reads, 1,000 outstanding, /s" "$a" "" ""
row "resident memory of an idle node, MiB" "$((idle / 1024))" "" ""
