#!/bin/sh
# Prints the path of the kube-apiserver that the tests run (tests/cluster). It is built from the Go modules that
# tests/cluster/apiserver pins, once for each list of them, in the cache of this user.
#   KUBE_APISERVER=$(scripts/kube_apiserver.sh)
set -eu

say() { printf 'kube_apiserver: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

self=$(readlink -f -- "$0")
source=${self%/scripts/*}/tests/cluster/apiserver
[ -n "${XDG_CACHE_HOME:-}${HOME:-}" ] || die "there is no cache to build into: set HOME"
cache=${XDG_CACHE_HOME:-${HOME:-}/.cache}/run-cycle-loop/kube-apiserver
cd "$source" || die "$source is missing: run this from a whole checkout"
name=$(cat go.mod go.sum main.go | sha256sum | cut -c1-16)
place=$cache/$name
binary=$place/kube-apiserver

if [ ! -d "$place" ]; then
    command -v go >/dev/null 2>&1 || die "go is missing: install Go 1.26 or newer, then run this again"
    mkdir -p "$cache" 2>/dev/null || die "$cache cannot be made: make it writable, or set XDG_CACHE_HOME"
    exec 9<"$cache"
    flock -n 9 || { say "waiting for another process that builds it"; flock 9; }
fi

if [ ! -d "$place" ]; then
    version=$(sed -n 's|.*k8s.io/kubernetes \(v[0-9.]*\)$|\1|p' go.mod)
    new=$cache/.$name.new
    rm -rf "$new"
    mkdir "$new"
    say "building kube-apiserver $version (this happens once, and takes minutes and some gigabytes of /tmp)"
    nice go build -mod=readonly -buildvcs=false -trimpath \
        -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$version" \
        -o "$new/kube-apiserver" . >"$cache/build.log" 2>&1 9<&- || {
        tail -n 5 "$cache/build.log" >&2
        die "go could not build it for the reason above: see to it and run this again"
    }
    mv "$new" "$place"
fi

[ -x "$binary" ] || die "$binary is missing: remove $place and run this again"
printf '%s\n' "$binary"
