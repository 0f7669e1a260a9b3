# What the scripts beside this one share: clusters that run while they measure, rounds in turns,
# medians. To be sourced from the repository's root, with `work` set to a folder of the script's own.
ringraft=${RINGRAFT:-$PWD/target/release/ringraft}
declare -A clusters=()

# cluster NAME PORT ARGUMENTS...: starts a quorum and waits until it says that it is ready.
cluster() {
    local name=$1 port=$2
    shift 2
    "${RINGRAFT_NODES:-$ringraft}" dev --dir "$work/$name" --base-port "$port" --output json "$@" \
        >"$work/$name.json" 2>"$work/$name.log" &
    clusters[$name]=$!
    for _ in $(seq 600); do
        grep -q '"nodes"' "$work/$name.json" && return
        kill -0 "${clusters[$name]}" 2>/dev/null || break
        sleep 0.1
    done
    echo "the cluster $name didn't become ready:" >&2
    cat "$work/$name.log" >&2
    return 1
}

# stop NAME: ends a quorum in good order.
stop() {
    kill -INT "${clusters[$1]}" 2>/dev/null || true
    wait "${clusters[$1]}" || true
    unset "clusters[$1]"
}

stop_all() {
    local name
    for name in "${!clusters[@]}"; do stop "$name"; done
}

# endpoints PORT: of a quorum of three.
endpoints() { echo "127.0.0.1:$1,127.0.0.1:$(($1 + 10)),127.0.0.1:$(($1 + 20))"; }

# note NAME ARGUMENTS...: runs one benchmark and keeps its line.
note() {
    local name=$1
    shift
    "$ringraft" bench "$@" --output json 2>/dev/null | tail -1 >>"$work/$name.lines"
}

# spent CLUSTER: processor time of its nodes so far, in clock ticks.
spent() {
    grep -o '"pid":[0-9]*' "$work/$1.json" | cut -d: -f2 |
        xargs -I{} cat "/proc/{}/stat" | awk '{ sum += $14 + $15 } END { print sum }'
}

# note_cost NAME CLUSTER ARGUMENTS...: the same, with the processor time of the cluster's nodes for
# each operation, its warm-up too, microseconds: a busy machine changes that less than rates.
note_cost() {
    local name=$1 of=$2 before per_second
    shift 2
    before=$(spent "$of")
    note "$name" "$@"
    per_second=$(getconf CLK_TCK)
    local ticks=$(($(spent "$of") - before))
    tail -1 "$work/$name.lines" | tr ',{}' '\n\n\n' | awk -F: -v ticks="$ticks" -v hz="$per_second" '
        $1 == "\"ops_per_s\"" { rate = $2 }
        $1 == "\"seconds\"" || $1 == "\"warm_up_seconds\"" { seconds += $2 }
        END { if (rate > 0) printf "\"cpu_us\":%.3f\n", ticks * 1e6 / hz / (rate * seconds) }
    ' >>"$work/$name.cost.lines"
}

# median NAME FIELD: of all rounds.
median() {
    grep -o "\"$2\":[0-9.]*" "$work/$1.lines" | cut -d: -f2 | sort -g |
        awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

ratio() { awk -v a="$1" -v b="$2" 'BEGIN { if (b > 0) printf "%.2f", a / b; else print "-" }'; }
