#!/usr/bin/env bash
# The figures of README.md that concern snapshots and restarts, measured in one run: three node
# processes and one client on this machine, every write synced on a majority. What costs something
# is measured in turns with the same load without it; medians of the rounds are printed, with the
# ratios that count.
#
#   benches/snapshots.sh [take] [install] [space] [restart]      default: all four
#
#   ROUNDS=5           rounds in turns
#   STATE_MIB=1024     the state that is saved, given to a follower, or read back from the log, MiB
#   RATE=2000          writes of 1 KiB that are due in a second while something goes on (open loop)
#   LOAD_SECONDS=5     measured each time
#   SPACE_SECONDS=120  of the load without end (closed loop, 64 outstanding)
#   GROUPS_READ=1000   groups of the restart
#   RESTART_MIB=740    values of the restart, MiB: with what a log holds beside them, 1 GiB
#
# Needs the release build, some 12 GiB of disk and 8 GiB of memory; uses a folder of its own under
# target/, ports 17500 to 17522, and stops and removes everything it made but the numbers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${ROUNDS:-5} state_mib=${STATE_MIB:-1024} rate=${RATE:-2000} seconds=${LOAD_SECONDS:-5}
space_seconds=${SPACE_SECONDS:-120} groups=${GROUPS_READ:-1000}
restart_mib=${RESTART_MIB:-740}
work=$PWD/target/snapshots
source benches/rounds.sh
rm -rf "$work"
mkdir -p "$work"
helper=
finish() {
    [ -z "$helper" ] || kill "$helper" 2>/dev/null || true
    stop_all
    rm -rf "$work"/{take,install,space,restart3,restart1}
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
    profile take '[snapshot]' 'log_bytes = 0'
    cluster take $port --profile "$work/take.toml"
    fill
    save >/dev/null
    for round in $(seq "$rounds"); do
        echo "take: round $round of $rounds" >&2
        load still
        save_on &
        helper=$!
        sleep 0.2
        load taking
        kill "$helper" 2>/dev/null || true
        wait "$helper" 2>/dev/null || true
        helper=
        # The one that is being taken comes to its end.
        save >>"$work/saved.lines" || true
    done
    stop take
    rm -rf "$work/take"
    rows "writes while all nodes save $state_mib MiB" taking still
    row "one snapshot, ms" "$(median saved took_ms)" "" ""
}

# follower: the name of a node that doesn't lead.
follower() {
    "$ringraft" status $at --output json | grep -o '"role":"[a-z]*"[^{]*"name":"[a-z]*"' |
        grep -v '"role":"leader"' | grep -o '"name":"[a-z]*"' | head -1 | cut -d'"' -f4
}

# pid CLUSTER NAME: of a node.
pid() { pgrep -f -- "node --config $work/$1/$2/node.toml"; }

is_installing() {
    "$ringraft" snapshot ls $at --node "$1" --output json 2>/dev/null |
        grep -q '"activity":"installing"'
}

measure_install() {
    profile install '[snapshot]' 'log_bytes = 0' 'lag_bytes = 268435456'
    cluster install $port --profile "$work/install.toml"
    fill
    local away windows
    for round in $(seq "$rounds"); do
        load beside
        away=$(follower)
        echo "install: round $round of $rounds, on node $away" >&2
        kill -9 "$(pid install "$away")"
        sleep 1
        # More than the log keeps for followers that lag.
        while
            "$ringraft" bench commit $at $values --outstanding 512 --seconds 2 >/dev/null 2>&1
            [ "$(log_bytes install)" -lt $((352 * 1048576)) ]
        do :; done
        save >/dev/null 2>&1 || true
        sleep 1
        "$ringraft" dev restart "$away" --dir "$work/install" >/dev/null
        for _ in $(seq 600); do
            ! is_installing "$away" || break
            sleep 0.05
        done
        windows=0
        while is_installing "$away"; do
            load installing
            windows=$((windows + 1))
        done
        echo "  $windows windows" >&2
        grep -h 'snapshot installed' "$work/install/$away/node.log" | tail -1 |
            grep -o 'took_us=[0-9]*' | sed 's/took_us=/"took_us":/' >>"$work/installed.lines"
        caught_up
    done
    stop install
    rm -rf "$work/install"
    rows "writes while a follower installs $state_mib MiB" installing beside
    row "the worst window of all, p99, us" "$(most installing p99)" "" ""
    row "one install, us" "$(median installed took_us)" "" ""
}

# caught_up: waits until no node lacks entries.
caught_up() {
    for _ in $(seq 600); do
        ! "$ringraft" status $at --output json | grep -q '"lag_entries":[1-9]' || { sleep 0.1; continue; }
        return 0
    done
}

# log_bytes CLUSTER: the longest log of its nodes.
log_bytes() { used "$1" seg | sort -g | tail -1; }

# used CLUSTER SUFFIX: bytes in such files, of each node.
used() {
    local node
    for node in a b c; do
        find "$work/$1/$node" -name "*.$2" -printf '%s\n' 2>/dev/null |
            awk '{ sum += $1 } END { printf "%.0f\n", sum }'
    done
}

# nameless CLUSTER: bytes of removed files that are still being given back, of each node.
nameless() {
    local node process
    for node in a b c; do
        process=$(pid "$1" "$node" || true)
        find "/proc/$process/fd" -lname '*(deleted)' -exec stat -Lc %s {} + 2>/dev/null |
            awk '{ sum += $1 } END { printf "%.0f\n", sum }'
    done
}

# most NAME FIELD: of all rounds.
most() { grep -o "\"$2\":[0-9.]*" "$work/$1.lines" | cut -d: -f2 | sort -g | tail -1; }

# watch_space: notes five times a second what each node uses: log, snapshots, what was removed and
# isn't given back yet, and all together.
watch_space() {
    while true; do
        paste -d' ' <(used space seg) <(used space snp) <(nameless space) |
            awk '{
                printf "\"log\":%.0f,\"snapshots\":%.0f,\"nameless\":%.0f,", $1, $2, $3
                printf "\"all\":%.0f\n", $1 + $2 + $3
            }' \
                >>"$work/space.used.lines"
        sleep 0.2
    done
}

measure_space() {
    profile space
    cluster space $port --profile "$work/space.toml"
    fill
    watch_space &
    helper=$!
    "$ringraft" bench commit $at $values --outstanding 64 --seconds "$space_seconds" --timeout 30s \
        --output json 2>/dev/null | tail -1 >"$work/space.load.lines"
    kill "$helper"
    wait "$helper" 2>/dev/null || true
    helper=
    local live=$((keys * (value_bytes + 16) / 1048576)) both
    both=$(($(most space.used all) / 1048576))
    local taken
    taken=$(cat "$work"/space/*/node.log | grep -c 'snapshot taken' || true)
    stop space
    rm -rf "$work/space"
    row "disk of a node, most, MiB; live data; ratio" "$both" "$live" "$(ratio "$both" "$live")"
    row "its log, most, MiB" "$(($(most space.used log) / 1048576))" "" ""
    row "its snapshots, most, MiB" "$(($(most space.used snapshots) / 1048576))" "" ""
    row "removed, not yet given back, most, MiB" "$(($(most space.used nameless) / 1048576))" "" ""
    row "beyond twice the live data, MiB" "$((both - 2 * live))" "" ""
    row "writes, /s; p99, us" "$(median space.load ops_per_s)" "$(median space.load p99)" ""
    row "snapshots taken by three nodes in $space_seconds s" "$taken" "" ""
}

# restart NODES WHAT: restarts all nodes of a cluster at once, and waits until each group answers.
restart() {
    local nodes=$1 name=restart$1 log at
    at="--endpoints $(endpoints $port | cut -d, -f1-"$nodes")"
    profile "$name" '[snapshot]' 'log_bytes = 0'
    cluster "$name" $port --nodes "$nodes" --profile "$work/$name.toml" --groups "$groups"
    values="--value-bytes $value_bytes --keys $((restart_mib * 1024))" fill --groups "$groups"
    sleep 1
    log=$(($(log_bytes "$name") / 1048576))
    for round in $(seq "$rounds"); do
        echo "$2: round $round of $rounds, $log MiB of log" >&2
        stop "$name"
        "$ringraft" bench ready $at --groups "$groups" --output json >>"$work/$name.lines" &
        helper=$!
        cluster "$name" $port --nodes "$nodes"
        wait "$helper"
        helper=
    done
    grep -h recovered "$work/$name"/*/node.log | grep -o 'took_us=[0-9]*' |
        sed 's/took_us=/"took_us":/' >"$work/$name.recovered.lines"
    stop "$name"
    rm -rf "${work:?}/$name"
    row "$2, $log MiB, $groups groups: first read, ms" "$(median "$name" first_ms)" "" ""
    row "half of the groups, ms" "$(median "$name" half_ms)" "" ""
    row "all groups, ms" "$(median "$name" all_ms)" "" ""
    row "the slowest round, ms" "$(most "$name" all_ms)" "" ""
    row "of that reading the log through, us" "$(median "$name.recovered" took_us)" "" ""
}

measure_restart() {
    restart 3 "restart of three nodes at once"
    restart 1 "restart of a node alone"
}

row "" "with" "without" "ratio"
row "---" "---" "---" "---"
[ $# -gt 0 ] || set -- take install space restart
for figure in "$@"; do "measure_$figure"; done
