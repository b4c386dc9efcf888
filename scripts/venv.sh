# shellcheck shell=sh
# Makes and refreshes the virtual environments of this checkout. Sourced by run-cycle-loop and test, which set $root
# (the checkout, absolute) and $name (who speaks).

say() { printf '%s: %s\n' "$name" "$*" >&2; }
die() { say "$*"; exit 2; }

# is_ready VENV: whether it was finished for this checkout, where it stands now, and for this pyproject.toml.
is_ready() {
    [ -x "$1/bin/python" ] && [ -r "$1/.installed-root" ] || return 1
    IFS= read -r installed_root <"$1/.installed-root" || return 1
    [ "$installed_root" = "$root" ] && cmp -s "$root/pyproject.toml" "$1/.installed-pyproject.toml"
}

# find_python: set $python to the real path of the first interpreter that is new enough.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        python=$(probe_python "$PYTHON") ||
            die "PYTHON=$PYTHON is no working Python 3.11 or newer: name another, or unset PYTHON"
        return
    fi
    for candidate in python3.13 python3.12 python3.11 python3; do
        python=$(probe_python "$candidate") && return
    done
    die "no Python 3.11 or newer is on PATH: install one (sudo apt-get install python3), or name one in PYTHON"
}

# The real path, so that an environment whose interpreter is upgraded away is seen to be broken.
probe_python() {
    "$1" -c 'import os, sys
sys.version_info >= (3, 11) or sys.exit(1)
print(os.path.realpath(sys.executable))' 2>/dev/null
}

# ensure_venv VENV GROUP...: make it, with this project (editable, all extras) and these dependency groups in it.
ensure_venv() {
    is_ready "$1" && return
    # The lock is on the scripts folder: no litter, and it holds while pip lives, even if this shell is killed.
    (
        if ! flock -n 9 2>/dev/null; then
            say "waiting for another process that makes ${1##*/}"
            flock 9 2>/dev/null || say "no lock can be had on $root/scripts; going on without"
        fi
        is_ready "$1" || build_venv "$@"
    ) 9<"$root/scripts" || exit
}

build_venv() {
    venv=$1
    shift
    create_venv
    cp "$root/pyproject.toml" "$venv/.installing-pyproject.toml" || die "$venv cannot be written: make it writable"
    say "installing run-cycle-loop and what it needs into ${venv##*/}"
    rm -f "$venv/.installed-pyproject.toml"
    requirements "$@" >"$venv/.requirements.txt" || die "the dependency groups of pyproject.toml cannot be read: see above"
    pip_install
    # The stamps come last: whatever is interrupted before them is done again.
    printf '%s\n' "$root" >"$venv/.installed-root" && rm -f "$venv/.building" &&
        mv "$venv/.installing-pyproject.toml" "$venv/.installed-pyproject.toml" ||
        die "$venv cannot be written: make it writable"
    say "${venv##*/} is ready"
}

# create_venv: leave an environment with a working interpreter at $venv: the one that is there, where it will do.
create_venv() {
    if [ -e "$venv/.building" ]; then
        say "${venv##*/} was left unfinished; making it again"
        rm -rf "$venv" || die "$venv cannot be removed: remove it by hand"
    elif [ -e "$venv/.installed-root" ] && ! usable_venv; then
        say "${venv##*/} no longer fits this checkout; making it again"
        rm -rf "$venv" || die "$venv cannot be removed: remove it by hand"
    elif [ -e "$venv" ] || [ -L "$venv" ]; then
        probe_python "$venv/bin/python" >/dev/null ||
            die "$venv holds no working Python 3.11 or newer: remove it (rm -r '$venv') and run this again"
        return
    fi
    find_python
    say "making ${venv##*/} with $python (this happens once)"
    mkdir "$venv" 2>/dev/null && : >"$venv/.building" ||
        die "$venv cannot be made: make $root writable, or install elsewhere with pip install '$root'"
    new_environment
}

usable_venv() {
    IFS= read -r installed_root <"$venv/.installed-root" || return 1
    [ "$installed_root" = "$root" ] && probe_python "$venv/bin/python" >/dev/null
}

# Debian ships python3 without ensurepip; each way around it is tried, the one that changes the system last.
new_environment() {
    has_ensurepip && { plain_venv; return; }
    if "$python" -m venv --without-pip "$venv" >/dev/null 2>&1 &&
        "$python" -m pip --python "$venv/bin/python" --version >/dev/null 2>&1; then
        return
    fi
    if command -v virtualenv >/dev/null 2>&1 && virtualenv -q -p "$python" "$venv" >/dev/null 2>&1; then
        return
    fi
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt_install python3-venv
        has_ensurepip && { plain_venv; return; }
    fi
    die "$python cannot make virtual environments: run sudo apt-get install python3-venv, then this again"
}

has_ensurepip() { "$python" -c 'import ensurepip, venv' 2>/dev/null; }

plain_venv() {
    "$python" -m venv "$venv" >"$venv/.venv.log" 2>&1 || {
        tail -n 5 "$venv/.venv.log" >&2
        die "$python -m venv $venv failed for the reason above"
    }
}

# apt_install PACKAGE...: as root; daemons that come along are not started.
apt_install() {
    say "installing Debian packages: $*"
    apt_log=$(mktemp)
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y --no-install-recommends "$@"; } >"$apt_log" 2>&1 </dev/null; then
        tail -n 5 "$apt_log" >&2
        rm -f "$apt_log"
        die "apt-get could not install $* for the reason above"
    fi
    rm -f "$apt_log"
}

# requirements GROUP...: those dependency groups of pyproject.toml, one requirement a line (older pips know no --group).
requirements() {
    "$venv/bin/python" -c 'import sys, tomllib
with open(sys.argv[1], "rb") as file:
    groups = tomllib.load(file).get("dependency-groups", {})
for group in sys.argv[2:]:
    print(*groups[group], sep="\n")' "$venv/.installing-pyproject.toml" "$@"
}

# pip_install: show what is collected; on failure pip's own last lines, and nothing that would pass for finished.
pip_install() {
    {
        status=0
        (cd "$root" && pip_of_venv install --progress-bar off -e '.[all]' -r "$venv/.requirements.txt") || status=$?
        echo "$status" >"$venv/.pip-status"
    } 2>&1 | tee "$venv/.pip.log" | sed -un "s/^Collecting \([^ ]*\).*/$name:   \1/p" >&2
    read -r status <"$venv/.pip-status"
    [ "$status" -eq 0 ] && return
    { grep -E '(ERROR|[Ee]rror):' "$venv/.pip.log" || cat "$venv/.pip.log"; } | tail -n 5 >&2
    say "pip could not install run-cycle-loop into $venv for the reason above: see to it and run this again"
    exit 1
}

pip_of_venv() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        "$venv/bin/python" -m pip "$@"
    else
        [ -n "${python:-}" ] || find_python
        "$python" -m pip --python "$venv/bin/python" "$@"
    fi
}
