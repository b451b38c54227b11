#!/usr/bin/env bash
# Runs inside the machine of hack/vm, as root, as a systemd unit. Each check says "ok …"; the first
# failure ends it. See hack/vm.

# shellcheck source=lib.sh disable=SC1091 # beside this file on the machine's second disk
. /data/lib.sh

mebibyte=1048576

the_node() {
    equal "the file system of /sys/fs/cgroup" "$(stat -fc %T /sys/fs/cgroup)" cgroup2fs
    [ -d /run/systemd/system ] || fail "systemd is not the manager"
    equal "process 1" "$(cat /proc/1/comm)" systemd
    ok "node: $(ctr version | awk '/Version:/ { print $2 }' | tail -n 1) of containerd, systemd $(systemctl --version | awk 'NR == 1 { print $2 }'), kernel $(uname -r), cgroup v2 with $(cat /sys/fs/cgroup/cgroup.controllers)"
}

# Compiling makes a scope for a moment; the slice stays for as long as systemd keeps it, and the journal
# of process 1 tells of both.
hello() {
    local output
    output=$(ctr run --rm --runtime "$runtime" "$(image hello)" hello)
    equal "the output of hello" "$output" hello
    journalctl --sync
    journalctl --boot --no-pager _PID=1 --grep='wasmlet-aot-wasmtime' >/run/scopes ||
        fail "systemd has seen no scope with the compile helper"
    grep -q "Started run-.*\.scope" /run/scopes || fail "no scope was started: $(cat /run/scopes)"
    journalctl --boot --no-pager _PID=1 --grep='Created slice wasmlet-compile.slice' >/dev/null ||
        fail "systemd has not made wasmlet-compile.slice"
    output=$(ctr run --rm --runtime "$runtime" "$(image hello)" hello-again)
    equal "the output of hello from the cache" "$output" hello
    journalctl --sync
    equal "the number of compilations" "$(compilations)" 1
    ok "hello, compiled in a scope of wasmlet-compile.slice, then from the cache"
}

# The bounds are the slice's, which all compilations of the node share; its scopes have none of their own.
compile_slice() {
    local group=/sys/fs/cgroup/wasmlet.slice/wasmlet-compile.slice
    equal "MemoryMax of the slice" "$(unit wasmlet-compile.slice MemoryMax)" $((1024 * mebibyte))
    equal "TasksMax of the slice" "$(unit wasmlet-compile.slice TasksMax)" 512
    # systemd drops the cgroup of a slice that nothing is in.
    systemctl start wasmlet-compile.slice
    equal "memory.max of $group" "$(cat "$group/memory.max")" $((1024 * mebibyte))
    equal "pids.max of $group" "$(cat "$group/pids.max")" 512
    grep -q '^[0-9]' "$group/cpu.max" || fail "no bound on processor time: $(cat "$group/cpu.max")"
    systemctl stop wasmlet-compile.slice
    ok "wasmlet-compile.slice bounds memory, processor time and tasks of all compilations together"
}

compilations() { journalctl --boot --no-pager --output=cat _PID=1 --grep='^Started run-.*wasmlet-aot-wasmtime' | wc -l; }

# The slice's bound holds: a helper that needs more is killed, and the message names the option. Its program is
# in the page cache by now and charged elsewhere, so that only the memory of its own counts: about 1 MiB.
compile_bound() {
    local output status=0
    cat >/run/bound.toml <<OPTIONS
CacheDir = "/var/lib/bound-cache"
CompileMemoryBytes = $((mebibyte / 2))
OPTIONS
    output=$(ctr run --rm --runtime "$runtime" --runtime-config-path /run/bound.toml "$(image hello)" bound 2>&1) || status=$?
    [ "$status" != 0 ] || fail "compiled within 512 KiB: $output"
    grep -q "needs more than $((mebibyte / 2)) bytes of memory.*CompileMemoryBytes" <<<"$output" ||
        fail "another reason than the bound on memory: $output"
    ctr containers delete bound 2>/dev/null || true
    equal "MemoryMax of the slice after the option changed" "$(unit wasmlet-compile.slice MemoryMax)" $((mebibyte / 2))
    ok "a compilation is killed at the slice's memory bound, and the error says so"
}

memory_limit() {
    local got=0
    ctr run --rm --runtime "$runtime" --memory-limit $((64 * mebibyte)) "$(image grow)" grow || got=$?
    # 64 would mean that the guest has all of the container's memory, and 137 that the kernel killed it.
    if [ "$got" -lt 16 ] || [ "$got" -ge 64 ]; then fail "the guest got $got MiB under a limit of 64 MiB"; fi
    start sleep limited --memory-limit $((64 * mebibyte))
    local pid group
    pid=$(pid_of limited)
    group=$(cgroup_of "$pid")
    equal "the cgroup" "$group" /sys/fs/cgroup/default/limited
    equal "memory.max of $group" "$(cat "$group/memory.max")" $((64 * mebibyte))
    grep -qx "$pid" "$group/cgroup.procs" || fail "process $pid is not in $group"
    equal "pids of $group" "$(cat "$group/cgroup.procs")" "$pid"
    ok "limit of 64 MiB: memory.grow failed after $got MiB; memory.max $(cat "$group/memory.max"), $(cat "$group/memory.current") bytes charged to a sleeping guest"
}

# The numbers of the kernel, as a message that containerd understands.
metrics() {
    local usage group charged
    group=$(cgroup_of "$(pid_of limited)")
    usage=$(ctr tasks metrics limited)
    charged=$(awk '$1 == "memory.usage" || $1 == "memory.current" { print $2 }' <<<"$usage")
    grep -q . <<<"$charged" || fail "no usage of memory in: $usage"
    if [ "$charged" -lt $((mebibyte / 8)) ] || [ "$charged" -gt $((64 * mebibyte)) ]; then fail "memory usage of $charged bytes"; fi
    equal "limit in the metrics" "$(awk '$1 == "memory.usage_limit" || $1 == "memory.limit" { print $2 }' <<<"$usage")" $((64 * mebibyte))
    ok "metrics: $(grep -E '^(memory|cpu|pids)' <<<"$usage" | awk '{ printf "%s%s=%s", sep, $1, $2; sep = " " }')"
}

size() { stat -c %s "$1"; }
larger() { [ "$(size "$1")" -gt "$2" ]; }

pause_and_resume() {
    local group before
    group=$(cgroup_of "$(pid_of limited)")
    within 20 "output of the guest" larger /run/limited.log 2
    ctr tasks pause limited
    equal "the state after pause" "$(status_of limited)" PAUSED
    equal "cgroup.freeze" "$(cat "$group/cgroup.freeze")" 1
    grep -qx "frozen 1" "$group/cgroup.events" || fail "not frozen: $(cat "$group/cgroup.events")"
    # What it wrote before may still be on its way through the shim.
    sleep 0.5
    before=$(size /run/limited.log)
    sleep 1
    equal "the size of a frozen guest's output" "$(size /run/limited.log)" "$before"
    ctr tasks resume limited
    equal "the state after resume" "$(status_of limited)" RUNNING
    within 20 "output after resume" larger /run/limited.log "$before"
    remove limited
    [ ! -e "$group" ] || fail "$group stays behind"
    ok "pause freezes the cgroup, resume thaws it, delete removes it"
}

unit() { systemctl show --property="$2" --value "$1"; }
scope_gone() { [ "$(unit "$1" ActiveState)" = inactive ]; }

# One container with a cgroup path in systemd's form: wasm or Linux, the names are the same.
in_a_scope() {
    local kind=$1 id=$2 guest=$3 group pid metrics
    start "$guest" "$id" --memory-limit $((64 * mebibyte)) --cgroup "system.slice:wasmlet:$id"
    pid=$(pid_of "$id")
    group=$(cgroup_of "$pid")
    equal "the cgroup" "$group" "/sys/fs/cgroup/system.slice/wasmlet-$id.scope"
    equal "the scope" "$(unit "wasmlet-$id.scope" ActiveState)" active
    equal "its cgroup according to systemd" "/sys/fs/cgroup$(unit "wasmlet-$id.scope" ControlGroup)" "$group"
    equal "its limit according to systemd" "$(unit "wasmlet-$id.scope" MemoryMax)" $((64 * mebibyte))
    equal "memory.max of $group" "$(cat "$group/memory.max")" $((64 * mebibyte))
    systemctl daemon-reload
    equal "memory.max after systemd's reload" "$(cat "$group/memory.max")" $((64 * mebibyte))
    metrics=$(ctr tasks metrics "$id")
    grep -q '^memory' <<<"$metrics" || fail "no metrics of $id: $metrics"
    ctr tasks pause "$id"
    equal "cgroup.freeze" "$(cat "$group/cgroup.freeze")" 1
    ctr tasks resume "$id"
    remove "$id"
    within 20 "end of wasmlet-$id.scope" scope_gone "wasmlet-$id.scope"
    [ ! -e "$group" ] || fail "$group stays behind"
    ok "$kind container in wasmlet-$id.scope of system.slice: limit, metrics, pause, and gone with the container"
}

linux() {
    local output
    output=$(ctr run --rm --runtime "$runtime" "$(image busybox)" linux /bin/busybox echo from linux)
    equal "the output of a Linux container" "$output" "from linux"
    ok "a Linux container through the same runtime"
}

# The programs as the machine sees them: the names of processes are cut at 15 characters.
processes() { pgrep -l 'containerd-shim|wasmlet-|runc' || true; }
no_processes() { [ -z "$(processes)" ]; }

nothing_stays() {
    local left
    within 20 "end of our processes: $(processes)" no_processes
    left=$(ctr tasks ls --quiet && ctr containers ls --quiet)
    equal "what containerd still has" "$left" ""
    # The folder above, named after containerd's namespace, is there to stay under runc's shim, too.
    left=$(find /sys/fs/cgroup -type d \( -path '*/default/*' -o -name '*wasmlet*.scope' -o -name 'run-*.scope' \))
    equal "cgroups that stay" "$left" ""
    left=$(systemctl list-units --all --no-legend --plain 'wasmlet-*.scope' 'run-*.scope')
    equal "scopes that stay" "$left" ""
    left=$(awk '$5 ~ /wasmlet|io.containerd.runtime|rootfs/ { print $5 }' /proc/self/mountinfo)
    equal "mounts that stay" "$left" ""
    # What is checked and three empty folders stay until the next boot (docs/decisions/0006).
    left=$(find /run/wasmlet /run/containerd/io.containerd.runtime.v2.task -mindepth 2 2>/dev/null |
        grep -Ev '^/run/wasmlet/(verified/|[0-9a-f]{12}/(runc|w)$)' || true)
    equal "files that stay" "$left" ""
    left=$(systemctl list-units --failed --no-legend --plain)
    equal "failed units" "$left" ""
    ok "no process, container, cgroup, scope, mount or state stays"
}

install_programs
the_node
hello
compile_slice
compile_bound
memory_limit
metrics
pause_and_resume
in_a_scope wasm guest sleep
in_a_scope Linux box busybox
linux
nothing_stays
