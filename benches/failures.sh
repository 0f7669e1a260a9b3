#!/usr/bin/env bash
# The figures of README.md that concern leaders that are gone, nodes that are slow, and more load
# than there is room for, measured with three node processes and one client on this machine.
#
#   benches/failures.sh [killed] [frozen] [cut] [planned] [slow] [overload] [lease]   default: all
#
#   ROUNDS=100        failures of each kind
#   RATE=500          writes of 128 bytes that are due in a second meanwhile (open loop)
#   LOAD_ROUNDS=5     rounds of the others, in turns with what they are compared with
#   LOAD_SECONDS=5    measured each time
#   PROFILES="low-latency defaults"
#
# The write gap of a failure is the longest time that any write took that was due around it: one is due
# every 2 ms, so one was due when the leader went. Nothing that this machine does beside is taken off.
#
# Needs the release build and root (it moves into a network namespace of its own, which is also
# where "cut" cuts); uses a folder of its own under target/, and stops and removes everything it
# made but the numbers.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ "${FAILURES_INSIDE:-}" != 1 ]; then
    FAILURES_INSIDE=1 exec unshare -n -- "${BASH_SOURCE[0]}" "$@"
fi
ip link set lo up
rounds=${ROUNDS:-100} rate=${RATE:-500} load_rounds=${LOAD_ROUNDS:-5} seconds=${LOAD_SECONDS:-5}
work=$PWD/target/failures
source benches/rounds.sh
rm -rf "$work"
mkdir -p "$work"
finish() {
    [ -z "${frozen:-}" ] || kill -CONT "$frozen" 2>/dev/null || true
    [ -z "${slowed:-}" ] || kill -CONT "$slowed" 2>/dev/null || true
    stop_all
    rm -rf "$work"/*/
}
trap finish EXIT
port=17300
at="--endpoints $(endpoints $port)"
load="--value-bytes 128 --keys 10000"
names=(- a b c)

pid() { pgrep -f -- "node --config $work/$1/$2/node.toml"; }

# leader: the node that leads group 1, as soon as all three say so.
leader() {
    local said
    for _ in $(seq 200); do
        said=$("$ringraft" status $at --timeout 1s --output json 2>/dev/null |
            grep -o '"group":1,[^}]*"leader":[1-3]' | grep -o '[1-3]$' | sort | uniq -c) || true
        if [[ $said =~ ^\ *3\ ([1-3])$ ]]; then
            echo "${BASH_REMATCH[1]}"
            return
        fi
        sleep 0.05
    done
    echo "no leader of group 1 on which three nodes agree" >&2
    return 1
}

# settled: waits until all is well.
settled() { leader >/dev/null && sleep 0.3; }

# cut_off PID: drops all that a node sends or is sent, and whatever would connect anew.
cut_off() {
    local ports
    ports=$(ss -Htanp | grep "pid=$1," | awk '{ n = split($4, at, ":"); print at[n] }' | sort -un |
        paste -sd,)
    nft -f - <<RULES
table inet cut {
    chain in {
        type filter hook input priority 0; policy accept;
        tcp dport { $ports } drop
        tcp sport { $ports } drop
        tcp flags & (syn | ack) == syn tcp dport { $((port + 1)), $((port + 11)), $((port + 21)) } drop
    }
}
RULES
}

# gaps KIND PROFILE: a failure in each round, under load.
gaps() {
    local kind=$1 profile=$2 name="$1-$2" arguments=() led node window=1.7
    [ "$profile" = defaults ] || arguments=(--profile "$profile")
    if [ "$profile" = defaults ]; then
        echo 'about = "the defaults"' >"$work/defaults.toml"
        arguments=(--profile "$work/defaults.toml") window=2.6
    fi
    [ "$kind" != planned ] || window=1.2
    cluster "$name" $port "${arguments[@]}"
    settled
    for round in $(seq "$rounds"); do
        ((round % 10 != 1)) || echo "$name: round $round of $rounds" >&2
        led=$(leader)
        node=$(pid "$name" "${names[$led]}")
        note "$name" commit $at $load --rate "$rate" --outstanding 10000 --timeout 10s \
            --warm-up-seconds 0.2 --seconds $window &
        local writing=$!
        sleep 0.6
        case $kind in
        killed) kill -KILL "$node" ;;
        frozen) frozen=$node && kill -STOP "$node" ;;
        cut) cut_off "$node" ;;
        planned) "$ringraft" leader transfer --group 1 --yes $at --output json >/dev/null ;;
        esac
        wait "$writing"
        case $kind in
        killed) "$ringraft" dev restart --dir "$work/$name" "${names[$led]}" >/dev/null ;;
        frozen) kill -CONT "$node" && frozen= ;;
        cut) nft delete table inet cut ;;
        esac
        settled
    done
    stop "$name"
    rm -rf "${work:?}/$name"
    gap_row "$name" "$kind, $profile"
}

# percentile NAME FIELD PERCENT: of all rounds.
percentile() {
    grep -o "\"$2\":[0-9.]*" "$work/$1.lines" | cut -d: -f2 | sort -g |
        awk -v p="$3" '{ v[NR] = $1 } END { at = int((NR * p + 99) / 100); print v[at] / 1000 }'
}

row() { printf '| %-52s | %10s | %10s | %10s | %8s |\n' "$@"; }
gap_row() {
    local lost
    lost=$(grep -o '"errors":{[^}]*}' "$work/$1.lines" | grep -o '[0-9]*' | awk '{ s += $1 } END { print s + 0 }')
    row "write gap, $2, ms (writes not done: $lost)" "$(percentile "$1" max 50)" \
        "$(percentile "$1" max 99)" "$(percentile "$1" max 100)" "$(grep -c ops_per_s "$work/$1.lines")"
}

# slow KIND: writes while a follower is slow, in turns with the same without.
slow() {
    local name=slow led node follower
    cluster $name $port
    settled
    for kind in processor link; do
        for round in $(seq "$load_rounds"); do
            echo "slow $kind: round $round of $load_rounds" >&2
            led=$(leader)
            follower=$((led % 3 + 1))
            node=$(pid $name "${names[$follower]}")
            note "$kind-still" commit $at $load --rate "$rate" --outstanding 10000 \
                --warm-up-seconds 0.5 --seconds "$seconds"
            case $kind in
            processor)
                # It runs for 2 ms of every 20.
                (while kill -STOP "$node" 2>/dev/null; do
                    sleep 0.018
                    kill -CONT "$node"
                    sleep 0.002
                done) &
                slowing=$! slowed=$node
                ;;
            link)
                nft -f - <<RULES
table inet cut {
    chain in {
        type filter hook input priority 0; policy accept;
        tcp dport $((port + 10 * (follower - 1) + 1)) limit rate over 50 kbytes/second burst 8 kbytes drop
        tcp sport $((port + 10 * (follower - 1) + 1)) limit rate over 50 kbytes/second burst 8 kbytes drop
    }
}
RULES
                ;;
            esac
            note "$kind-slow" commit $at $load --rate "$rate" --outstanding 10000 \
                --warm-up-seconds 0.5 --seconds "$seconds"
            case $kind in
            processor)
                kill "$slowing"
                wait "$slowing" 2>/dev/null || true
                kill -CONT "$node"
                slowed=
                ;;
            link) nft delete table inet cut ;;
            esac
            settled
        done
        local a b
        for percent in p50 p99; do
            a=$(median "$kind-slow" $percent) b=$(median "$kind-still" $percent)
            row "writes, a follower with a slow $kind, $percent, us" "$a" "$b" "$(ratio "$a" "$b")" \
                "$load_rounds"
        done
    done
    stop $name
}

# overload: ten times what a closed loop reaches is due, in turns with it.
overload() {
    local name=overload full
    cluster $name $port
    settled
    for round in $(seq "$load_rounds"); do
        echo "overload: round $round of $load_rounds" >&2
        note full commit $at $load --outstanding 10000 --seconds "$seconds"
        full=$(tail -1 "$work/full.lines" | grep -o '"ops_per_s":[0-9]*' | cut -d: -f2)
        note over commit $at $load --rate $((10 * full)) --outstanding 1000000 --connections 4 \
            --seconds "$seconds" --timeout 10s
        for of in a b c; do
            awk '/VmHWM/ { printf "\"kib\":%d\n", $2 }' "/proc/$(pid $name $of)/status"
        done | sort -t: -k2 -g | tail -1 >>"$work/resident.lines"
        settled
    done
    local a b
    a=$(median over ops_per_s) b=$(median full ops_per_s)
    row "writes done in a second, ten times as many are due" "$a" "$b" "$(ratio "$a" "$b")" "$load_rounds"
    row "resident memory of a node at most, MiB" "$(($(median resident kib) / 1024))" "" "" "$load_rounds"
    stop $name
}

lease() {
    local name=lease a b
    cluster $name $port
    settled
    for round in $(seq "$load_rounds"); do
        echo "lease: round $round of $load_rounds" >&2
        note echo floor --echo --outstanding 1 --seconds "$seconds"
        note lease read $at $load --consistency lease --outstanding 1 --seconds "$seconds"
        note asked read $at $load --outstanding 1 --seconds "$seconds"
    done
    a=$(median lease p50) b=$(median echo p50)
    row "read by lease, 1 outstanding, p50, us; an echo" "$a" "$b" "$(ratio "$a" "$b")" "$load_rounds"
    a=$(median asked p50)
    row "linearizable read, 1 outstanding, p50, us; an echo" "$a" "$b" "$(ratio "$a" "$b")" "$load_rounds"
    stop $name
}

read -ra profiles <<<"${PROFILES:-low-latency defaults}"
[ $# -gt 0 ] || set -- killed frozen cut planned slow overload lease
for what; do
    case $what in
    killed | frozen | cut | planned)
        row "" "p50" "p99" "max" "rounds"
        for profile in "${profiles[@]}"; do gaps "$what" "$profile"; done
        ;;
    slow) row "" "with" "without" "ratio" "rounds" && slow ;;
    overload) row "" "ten times" "closed loop" "ratio" "rounds" && overload ;;
    lease) row "" "ours" "the floor" "ratio" "rounds" && lease ;;
    *) echo "there is no $what" >&2 && exit 2 ;;
    esac
done
