#!/usr/bin/env bash
# The figures of README.md that concern snapshots and restarts, measured in one run: three node
# processes and one client on this machine, every write synced on a majority. What costs something
# is measured in turns with the same load without it; medians of the rounds are printed, with the
# ratios that count.
#
#   benches/snapshots.sh [take] [install] [space] [restart]      default: all four
#
#   ROUNDS=5       rounds in turns
#   STATE_MIB=1024 the state that is saved, given to a follower, or read back, MiB
#   RATE=5000      writes that are due in a second while something goes on (open loop)
#   SECONDS_EACH=5 measured each time
#   SPACE_SECONDS=120  of the load without end
#
# Needs the release build, some 12 GiB of disk and 8 GiB of memory; uses a folder of its own under
# target/, ports 17500 to 17522, and stops and removes everything it made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${ROUNDS:-5} state_mib=${STATE_MIB:-1024} rate=${RATE:-5000} seconds=${SECONDS_EACH:-5}
space_seconds=${SPACE_SECONDS:-120}
work=$PWD/target/snapshots
source benches/rounds.sh
rm -rf "$work"
mkdir -p "$work"
saver=
finish() {
    [ -z "$saver" ] || kill "$saver" 2>/dev/null || true
    stop_all
    rm -rf "$work"/{take,install,space,restart}
}
trap finish EXIT

value_bytes=1024
keys=$((state_mib * 1024))
port=17500
at="--endpoints $(endpoints $port)"
values="--value-bytes $value_bytes --keys $keys"

# profile NAME LINES...: settings of a cluster's nodes.
profile() {
    local name=$1
    shift
    printf '%s\n' 'about = "figures of snapshots"' "$@" >"$work/$name.toml"
}

# fill ARGUMENTS...: writes every key once.
fill() {
    "$ringraft" bench commit $at $values --fill --outstanding 512 --warm-up-seconds 0 \
        --seconds 0.1 --output json "$@" >/dev/null 2>&1
}

# load NAME: running writes, for as long as is measured.
load() {
    note "$1" commit $at $values --rate "$rate" --outstanding 10000 --timeout 20s \
        --warm-up-seconds 0.5 --seconds "$seconds"
}

# field JSON NAME: the number of the first field of that name.
field() { grep -o "\"$2\":[0-9]*" <<<"$1" | head -1 | cut -d: -f2; }

row() { printf '| %-52s | %12s | %12s | %6s |\n' "$@"; }

# rows WHAT NAME BASE: the percentiles of two loads.
rows() {
    local percent a b
    for percent in p50 p99 p999 max; do
        a=$(median "$2" "$percent") b=$(median "$3" "$percent")
        row "$1, $percent, us" "$a" "$b" "$(ratio "$a" "$b")"
    done
}

# save NODES...: has these nodes, or all, save their state, and waits for it.
save() {
    local nodes=()
    [ $# = 0 ] || nodes=(--node "$(IFS=,; echo "$*")")
    "$ringraft" snapshot take $at "${nodes[@]}" --wait --output json
}

# save_on: has all nodes save their state, one time after the other.
save_on() {
    while true; do save >>"$work/saved.lines" 2>/dev/null; done
}

measure_take() {
    profile take '[snapshot]' 'log_bytes = 0' 'lag_bytes = 134217728'
    cluster take $port --profile "$work/take.toml"
    fill
    save >/dev/null
    for round in $(seq "$rounds"); do
        echo "take: round $round of $rounds" >&2
        load still
        save_on &
        saver=$!
        sleep 0.2
        load taking
        kill "$saver" 2>/dev/null || true
        wait "$saver" 2>/dev/null || true
        saver=
        # The one that is being taken ends.
        save >>"$work/saved.lines"
    done
    rows "writes while all nodes save $state_mib MiB" taking still
    row "one snapshot, ms" "$(median saved took_ms)" "" ""
    stop take
    rm -rf "$work/take"
}

"$@"
