#!/usr/bin/env bash
# The figures of README.md that concern many groups, measured in one run: three node processes on
# this machine, with one group and with many that nobody uses. What a node takes is compared with what
# it takes with one group; times are from the start of the processes, or from the death of one.
#
#   benches/groups.sh
#
#   GROUPS_MANY=10000   groups
#   ROUNDS=3            cold starts, and deaths of a node
#   IDLE_SECONDS=30     in which idle nodes are watched
#
# Needs the release build; uses a folder of its own under target/, ports 17400 to 17422, and stops
# and removes everything it made.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
groups=${GROUPS_MANY:-10000} rounds=${ROUNDS:-3} idle_seconds=${IDLE_SECONDS:-30}
work=$PWD/target/groups
source benches/rounds.sh
rm -rf "$work"
mkdir -p "$work"
finish() {
    kill -CONT "${stopped:-$$}" 2>/dev/null || true
    stop_all
    rm -rf "$work"
}
trap finish EXIT
port=17400
http=($((port + 2)) $((port + 12)) $((port + 22)))

pids() { grep -o '"pid":[0-9]*' "$work/$1.json" | cut -d: -f2; }

# metric NAME PORTS...: the sum over shards and nodes; nodes that don't answer are left out.
metric() {
    local name=$1 of
    shift
    for of in "$@"; do
        # In a process of its own: its connection goes with it.
        (
            exec 3<>"/dev/tcp/127.0.0.1/$of" && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 &&
                timeout 2 cat <&3
        ) 2>/dev/null || true
    done | awk -v name="ringraft_$name" 'index($1, name "{") == 1 { sum += $2 } END { print sum + 0 }'
}

# now: seconds.
now() { date +%s.%N; }

since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f\n", b - a }'; }

# until_all NAME WANTED PORTS...: waits, a minute at most.
until_all() {
    local name=$1 wanted=$2
    shift 2
    for _ in $(seq 600); do
        [ "$(metric "$name" "$@")" -ge "$wanted" ] && return
        sleep 0.1
    done
    echo "$name isn't $wanted after a minute, but $(metric "$name" "$@")" >&2
    return 1
}

# idle NAME: what an idle node takes: resident MiB and processor time of a core, percent, the most of
# the three.
idle() {
    local pid before=() at=0 ticks most=0 memory=0
    for pid in $(pids "$1"); do before+=("$(awk '{ print $14 + $15 }' "/proc/$pid/stat")"); done
    sleep "$idle_seconds"
    for pid in $(pids "$1"); do
        ticks=$(($(awk '{ print $14 + $15 }' "/proc/$pid/stat") - before[at]))
        at=$((at + 1))
        [ "$ticks" -le "$most" ] || most=$ticks
        kib=$(awk '/VmRSS/ { print $2 }' "/proc/$pid/status")
        [ "$kib" -le "$memory" ] || memory=$kib
    done
    awk -v kib="$memory" -v ticks="$most" -v hz="$(getconf CLK_TCK)" -v s="$idle_seconds" \
        'BEGIN { printf "%d %.2f\n", kib / 1024, ticks * 100 / hz / s }'
}

echo "one group" >&2
cluster one $port
sleep 15
read -r memory_one processor_one < <(idle one)
stop one
rm -rf "$work/one"

all=$((groups + 1))
for round in $(seq "$rounds"); do
    echo "round $round of $rounds: $groups groups" >&2
    began=$(now)
    "$ringraft" dev --dir "$work/many" --base-port $port --output json --groups "$groups" \
        >"$work/many.json" 2>"$work/many.log" &
    clusters[many]=$!
    until_all groups_led "$all" "${http[@]}"
    if [ "$round" = 1 ]; then echo "\"s\":$(since "$began")" >>"$work/first.lines"; fi
    if [ "$round" != 1 ]; then echo "\"s\":$(since "$began")" >>"$work/start.lines"; fi
    until_all groups_hibernating $((3 * all)) "${http[@]}"
    if [ "$round" = 1 ]; then read -r memory_many processor_many < <(idle many); fi

    # The node that leads most of them hangs.
    most=0 at=0
    for i in 0 1 2; do
        led=$(metric groups_led "${http[$i]}")
        [ "$led" -le "$most" ] || { most=$led at=$i; }
    done
    stopped=$(pids many | sed -n "$((at + 1))p")
    others=("${http[@]}")
    unset "others[$at]"
    kill -STOP "$stopped"
    began=$(now)
    until_all groups_led "$all" "${others[@]}"
    echo "\"s\":$(since "$began"),\"led\":$most" >>"$work/death.lines"
    kill -CONT "$stopped"
    stopped=
    stop many
done

row() { printf '| %-58s | %12s | %12s | %8s |\n' "$@"; }
row "" "$groups groups" "one group" ""
row "---" "---" "---" "---"
row "resident memory of an idle node, MiB" "$memory_many" "$memory_one" \
    "+$((memory_many - memory_one))"
row "processor time of an idle node, percent of a core" "$processor_many" "$processor_one" ""
row "first start, until all are led, s" "$(median first s)" "" ""
if [ -s "$work/start.lines" ]; then
    row "later starts, until all are led, s, median" "$(median start s)" "" ""
fi
row "a node hangs that led $(median death led) of them, until all are led, s" "$(median death s)" "" ""
