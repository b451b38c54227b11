#!/usr/bin/env bash
# What comes before a node's process 1. Started by hack/cluster as process 1 of new mount, PID, UTS and IPC
# namespaces, in the node's network namespace; ends by becoming systemd. In two steps, because the folder in
# which a process is when its cgroup namespace is made is that namespace's root.
#
# Arguments: enter|mount, the node's folder, its name, its cgroup, the lower folders of its root.

set -Eeuo pipefail
trap 'echo "the node could not be started: line $LINENO (exit code $?): $BASH_COMMAND"' ERR
# shellcheck source=hack/cluster.d/cgroups.sh
. "$(dirname "${BASH_SOURCE[0]}")/cgroups.sh"

stage=$1 node=$2 hostname=$3 cgroup=$4 lower=$5

if [ "$stage" = enter ]; then
    enter_cgroup "$cgroup"
    # Seen from within the namespace they have other roots.
    cgroup_hierarchies >"$node/hierarchies"
    exec unshare --cgroup "${BASH_SOURCE[0]}" mount "$node" "$hostname" "$cgroup" "$lower"
fi

hostname "$hostname"
# Nothing of what follows is seen by the machine.
mount --make-rprivate /
hierarchies=$(cat "$node/hierarchies")

top=$node/root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$node/disk,workdir=$node/work" "$top"
mount -t proc proc "$top/proc"

# What is the whole machine's is not a node's to change, and a kubelet changes some of it when it starts. It is
# shown the values that it wants.
mount --bind "$top/proc/sys" "$top/proc/sys"
mount -o remount,bind,ro "$top/proc/sys"
mount --bind "$top/proc/sys/net" "$top/proc/sys/net"
mount -o remount,bind,rw "$top/proc/sys/net"
if [ -e "$top/proc/sysrq-trigger" ]; then
    mount --bind "$top/proc/sysrq-trigger" "$top/proc/sysrq-trigger"
    mount -o remount,bind,ro "$top/proc/sysrq-trigger"
fi
show() {
    # Not every kernel has each.
    [ -e "$top/proc/sys/$1" ] || return 0
    mkdir -p "$node/proc"
    echo "$2" >"$node/proc/${1//\//.}"
    mount --bind "$node/proc/${1//\//.}" "$top/proc/sys/$1"
}
show vm/overcommit_memory 1
show vm/panic_on_oom 0
show kernel/panic 10
show kernel/panic_on_oops 1
show kernel/keys/root_maxkeys 1000000
show kernel/keys/root_maxbytes 25000000
# A kubelet tells a reboot by it.
show kernel/random/boot_id "$(cat "$node/boot-id")"

mount -t sysfs -o ro sysfs "$top/sys"
if [ "$(echo "$hierarchies" | wc -l)" = 1 ] && [ "${hierarchies%% *}" = cgroup2 ]; then
    mount -t cgroup2 cgroup2 "$top/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$top/sys/fs/cgroup"
    while read -r type folder controllers; do
        folder=$top/sys/fs/cgroup/$(basename "$folder")
        mkdir -p "$folder"
        case $type,$controllers in
            cgroup2,*) mount -t cgroup2 cgroup2 "$folder" ;;
            cgroup,name=*) mount -t cgroup -o "none,$controllers" cgroup "$folder" ;;
            *)
                mount -t cgroup -o "$controllers" cgroup "$folder"
                # cpu,cpuacct is looked for under either name.
                for controller in ${controllers//,/ }; do
                    [ -e "$top/sys/fs/cgroup/$controller" ] || ln -s "$(basename "$folder")" "$top/sys/fs/cgroup/$controller"
                done
                ;;
        esac
    done <<<"$hierarchies"
fi

mount -t tmpfs -o mode=755 tmpfs "$top/dev"
for device in null zero full random urandom tty kmsg fuse; do
    [ -e "/dev/$device" ] || continue
    : >"$top/dev/$device"
    mount --bind "/dev/$device" "$top/dev/$device"
done
mkdir "$top/dev/pts" "$top/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$top/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$top/dev/shm"
ln -s pts/ptmx "$top/dev/ptmx"
ln -s /proc/self/fd "$top/dev/fd"
ln -s /proc/self/fd/0 "$top/dev/stdin"
ln -s /proc/self/fd/1 "$top/dev/stdout"
ln -s /proc/self/fd/2 "$top/dev/stderr"

mount -t tmpfs -o mode=755 tmpfs "$top/run"
mount -t tmpfs -o mode=1777 tmpfs "$top/tmp"
# An overlay cannot be the upper folder of another.
for folder in containerd kubelet; do
    mkdir -p "$top/var/lib/$folder"
    mount --bind "$node/$folder" "$top/var/lib/$folder"
done

cd "$top"
pivot_root . .
umount -l .
cd /
# Kubernetes wants what is mounted into containers to reach them.
mount --make-rshared /
exec env -i container=oci PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --log-target=journal --show-status=0
