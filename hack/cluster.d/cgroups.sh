# shellcheck shell=bash
# A cluster's control groups: one folder in every hierarchy, with one for the control plane and one for each
# node in it. Everything that belongs to a cluster is in there, wherever the caller of hack/cluster is, so a
# cluster's processes can be found and none outlives `down`. Sourced by hack/cluster, and by boot.sh.

# The hierarchies, a line each: type, folder, controllers.
cgroup_hierarchies() {
    awk '
        BEGIN {
            while ((getline line < "/proc/cgroups") > 0) { split(line, field); known[field[1]] = 1 }
        }
        {
            for (i = 1; i <= NF && $i != "-"; i++) ;
            if ($4 != "/" || ($(i + 1) != "cgroup" && $(i + 1) != "cgroup2") || seen[$3]++) next
            wanted = ""
            count = split($(i + 3), option, ",")
            for (j = 1; j <= count; j++)
                if (option[j] in known || option[j] ~ /^name=/) wanted = wanted (wanted == "" ? "" : ",") option[j]
            print $(i + 1), $5, (wanted == "" ? "-" : wanted)
        }' /proc/self/mountinfo
}

# Whether there is nothing but cgroup v2.
pure_v2() { ! cgroup_hierarchies | grep -q '^cgroup '; }

check_cgroups() {
    [ -n "$(cgroup_hierarchies)" ] || die "no cgroup hierarchy is mounted on this machine (or only parts of one, in a container)"
    pure_v2 || cgroup_hierarchies | grep -q ' name=systemd$' ||
        die "cgroup v1 without a hierarchy for systemd; make one: mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd"
}

# make_cgroup FOLDER: below every hierarchy's root.
make_cgroup() {
    local type mount controllers part path file
    while read -r type mount controllers; do
        path=$mount
        while read -r part; do
            if [ "$type" = cgroup2 ] && pure_v2; then
                # A group's children have the controllers that it passes on.
                tr ' ' '\n' <"$path/cgroup.controllers" | while read -r file; do
                    echo "+$file" >"$path/cgroup.subtree_control" 2>/dev/null || true
                done
            fi
            mkdir -p "$path/$part"
            case ,$controllers, in
                *,cpuset,*)
                    # An empty set of processors takes no process.
                    for file in cpuset.cpus cpuset.mems; do
                        [ -n "$(cat "$path/$part/$file")" ] || cat "$path/$file" >"$path/$part/$file"
                    done
                    ;;
            esac
            path=$path/$part
        done < <(tr / '\n' <<<"$1")
    done < <(cgroup_hierarchies)
}

# enter_cgroup FOLDER: the calling (sub)shell.
enter_cgroup() {
    local type mount controllers
    while read -r type mount controllers; do
        : "$type" "$controllers"
        echo "$BASHPID" >"$mount/$1/cgroup.procs"
    done < <(cgroup_hierarchies)
}

# cgroup_processes FOLDER [one]: in all hierarchies, or only in the first, which is enough to find those that
# nobody has moved, and quicker.
cgroup_processes() {
    local type mount controllers
    while read -r type mount controllers; do
        : "$type" "$controllers"
        [ -d "$mount/$1" ] || continue
        { find "$mount/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true; }
        [ "${2:-}" != one ] || break
    done < <(cgroup_hierarchies) | sort -un | { grep -vx 0 || true; }
}

# end_cgroup FOLDER: ends what is in it and removes it.
end_cgroup() {
    local type mount controllers pids deadline=$((SECONDS + 60))
    while true; do
        pids=$(cgroup_processes "$1" one)
        [ -n "$pids" ] || pids=$(cgroup_processes "$1")
        [ -n "$pids" ] || break
        # shellcheck disable=SC2086 # a list
        kill -KILL $pids 2>/dev/null || true
        [ "$SECONDS" -lt "$deadline" ] || {
            warn "these processes in the cgroup $1 do not end: $(echo "$pids" | tr '\n' ' ')"
            return 1
        }
        sleep 0.05
    done
    while read -r type mount controllers; do
        : "$type" "$controllers"
        [ -d "$mount/$1" ] || continue
        # A group of which the last process has only just gone may still be busy.
        until [ ! -d "$mount/$1" ]; do
            { find "$mount/$1" -depth -type d -exec rmdir {} + 2>/dev/null || true; }
            [ -d "$mount/$1" ] || break
            [ "$SECONDS" -lt "$deadline" ] || {
                warn "cannot remove the cgroup $mount/$1"
                return 1
            }
            sleep 0.05
        done
    done < <(cgroup_hierarchies)
}

cgroup_leftovers() {
    local type mount controllers
    while read -r type mount controllers; do
        : "$type" "$controllers"
        [ ! -d "$mount/$1" ] || echo "cgroup $mount/$1"
    done < <(cgroup_hierarchies)
}
