#!/usr/bin/env bash
# Two hosts on one machine: network namespaces joined by a cable, inside a namespace of its own.
# usage: two_hosts.sh FOLDER COMMAND...   where %N in COMMAND is the host's number. Prints each host's output and status.
# The hosts are 10.77.0.1 and 10.77.0.2; FOLDER gets `host-N.out`. Needs unprivileged namespaces and iproute2.
set -u
if [[ ${1-} != --inside ]]; then
    exec unshare --map-root-user --net --fork --kill-child bash "$0" --inside "$@"
fi
shift
folder=$1
shift
ip link set lo up && ip link add cable0 type veth peer name cable1 || exit 77
unshare --net sleep infinity &
other=$!
trap 'kill $other' EXIT
for _ in $(seq 50); do
    [[ $(readlink /proc/$other/ns/net) != $(readlink /proc/self/ns/net) ]] && break
    sleep 0.1
done
ip link set cable1 netns $other || exit 77
ip address add 10.77.0.1/24 dev cable0 && ip link set cable0 up
inside=(nsenter --target $other --net)
"${inside[@]}" ip link set lo up
"${inside[@]}" ip address add 10.77.0.2/24 dev cable1 && "${inside[@]}" ip link set cable1 up
GLOO_SOCKET_IFNAME=cable0 "${@//%N/0}" >"$folder/host-0.out" 2>&1 &
first=$!
GLOO_SOCKET_IFNAME=cable1 "${inside[@]}" "${@//%N/1}" >"$folder/host-1.out" 2>&1 &
second=$!
wait $first
echo "host 0: $?"
wait $second
echo "host 1: $?"
