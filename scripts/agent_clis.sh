#!/bin/sh
# Prints a folder that holds the agents' command lines that the tests run (tests/agents), each in one pinned version.
# They are installed once for each list of versions, in the cache of this user; no script of a package is run for it.
#   PATH=$(scripts/agent_clis.sh):$PATH
set -eu

packages="@openai/codex@0.169.0 @mariozechner/pi-coding-agent@0.73.1 @anthropic-ai/claude-code@2.1.332
opencode-ai@1.18.33 @google/gemini-cli@0.61.0"
programs="codex pi claude opencode gemini"

say() { printf 'agent_clis: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ -n "${XDG_CACHE_HOME:-}${HOME:-}" ] || die "there is no cache to install into: set HOME"
cache=${XDG_CACHE_HOME:-${HOME:-}/.cache}/run-cycle-loop/agent-clis
# shellcheck disable=SC2086 # a list of words
name=$(printf '%s\n' $packages | sha256sum | cut -c1-16)
place=$cache/$name

if [ ! -d "$place" ]; then
    for tool in node npm; do
        command -v "$tool" >/dev/null 2>&1 ||
            die "$tool is missing: install Node.js 20 or newer (apt-get install nodejs npm), then run this again"
    done
    mkdir -p "$cache" 2>/dev/null || die "$cache cannot be made: make it writable, or set XDG_CACHE_HOME"
    exec 9<"$cache"
    flock 9
fi

# link PROGRAM FILE...: the first of the files that is there is the program.
link() {
    program=$1
    shift
    for file in "$@"; do
        [ -x "$file" ] && { ln -s "../$file" "bin/$program"; return; }
    done
    die "npm left no $program for this machine: see $PWD"
}

if [ ! -d "$place" ]; then
    new=$cache/.$name.new
    rm -rf "$new"
    mkdir "$new" "$new/bin"
    cd "$new"
    printf '{"private": true}\n' >package.json
    say "installing $(printf '%s' "$packages" | tr '\n' ' ') (this happens once)"
    # shellcheck disable=SC2086 # a list of words
    npm install --no-audit --no-fund --ignore-scripts --loglevel=error $packages >npm.log 2>&1 9<&- || {
        tail -n 5 npm.log >&2
        die "npm could not install them for the reason above: see to it and run this again"
    }
    link codex node_modules/.bin/codex
    link pi node_modules/.bin/pi
    link gemini node_modules/.bin/gemini
    # These two are native; their packages' own scripts would only put the binary in the place of a stub.
    link claude node_modules/@anthropic-ai/claude-code-*/claude
    if [ "$(uname -m)" = x86_64 ] && ! grep -qs avx2 /proc/cpuinfo; then
        link opencode node_modules/opencode-linux-*-baseline/bin/opencode
    else
        link opencode node_modules/opencode-linux-x64/bin/opencode node_modules/opencode-linux-*/bin/opencode
    fi
    cd /
    mv "$new" "$place"
fi

for program in $programs; do
    [ -x "$place/bin/$program" ] || die "$place/bin/$program is missing: remove $place and run this again"
done
printf '%s\n' "$place/bin"
