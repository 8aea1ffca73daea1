#!/usr/bin/env bash
# A real TAP server (DaCHS on PostgreSQL, from Debian) on loopback, publishing the made archive.
#   serve.sh install                install what is missing; says why this machine cannot have it
#   serve.sh run PYTHON COMMAND...  install, publish, serve, run COMMAND with the server's address
#                                   in XPLABELS_TAP, stop serving
# It needs root on Debian or Ubuntu, and changes the machine: packages, a database cluster.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tap=http://127.0.0.1:8080/tap
packages=(postgresql gavodachs2-server curl)
apt_get=(apt-get -qq -o Acquire::Retries=1 -o Acquire::http::Timeout=20 -o DPkg::Lock::Timeout=120)
export DEBIAN_FRONTEND=noninteractive

# daemons must not inherit the lock, or it would outlive this script
as_gavo() { su gavo -s /bin/bash -c "$*" 9>&-; }

installed() {
    dpkg-query --show --showformat '${Status}\n' "${packages[@]}" 2>/dev/null |
        awk '$0 != "install ok installed" { bad = 1 } END { exit bad || NR != '${#packages[@]}' }'
}

# Why this machine cannot have the server, or nothing.
obstacle() {
    if [ "$(id -u)" != 0 ]; then
        echo "it needs root, to install Debian packages"
    elif ! command -v apt-get >/dev/null || ! command -v flock >/dev/null; then
        echo "it needs apt-get and flock, to install DaCHS"
    elif (: </dev/tcp/127.0.0.1/8080) 2>/dev/null && ! pgrep -u gavo >/dev/null 2>&1; then
        echo "port 8080, on which DaCHS serves, is taken"
    fi
}

install() {
    installed && return
    "${apt_get[@]}" update 9>&- >/dev/null || true
    get postgresql curl
    local version
    for version in $(pg_lsclusters --no-header | awk '{ print $1 }' | sort --unique); do
        get "postgresql-$version-pgsphere"
        mend_pgsphere "/usr/share/postgresql/$version/extension"
    done
    start_database
    # its set-up makes a database, so the cluster must run before it is configured
    get gavodachs2-server
}

get() { "${apt_get[@]}" install -y --no-install-recommends "$@" 9>&- >/dev/null; }

# PostgreSQL refuses pgSphere's operators @ on a smoc since 15.20: their commutators have others.
# pgSphere dropped them in 1.4 (its issue 85); Debian 12 has an older one. DaCHS needs them not.
mend_pgsphere() {
    local script
    for script in "$1"/pg_sphere--[0-9].[0-9].[0-9].sql; do
        [ -e "$script" ] || continue
        awk 'BEGIN { RS = ORS = ";" } !(/CREATE OPERATOR @ \(/ && /= smoc/)' "$script" >"$script.new"
        mv "$script.new" "$script"
    done
}

start_database() {
    local version name port status rest
    pg_lsclusters --no-header | while read -r version name port status rest; do
        [[ $status == online* ]] || pg_ctlcluster "$version" "$name" start 9>&- >/dev/null
    done
}

publish() {
    local inputs schema
    inputs=$(as_gavo dachs config inputsDir)
    "$1" "$here/publish.py" "$inputs"
    for schema in gaiadr1 gaiadr3 gaiadr4 catwise; do
        chown -R gavo "$inputs/$schema"
        as_gavo dachs --ui stingy import "$schema/q"
    done
}

stop() { as_gavo dachs serve stop >/dev/null 2>&1 || true; }

serve() {
    as_gavo dachs serve start
    for _ in $(seq 60); do
        curl --silent --fail --output /dev/null "$tap/availability" && return
        sleep 1
    done
    echo "DaCHS does not answer at $tap" >&2
    return 1
}

one_at_a_time() { # there is one port, one database
    exec 9>/run/lock/xplabels-dachs
    flock --timeout 600 9 || { echo "another make test-archive is at work"; return 1; }
}

case "${1:-}" in
install)
    why=$(obstacle)
    [ -z "$why" ] || { echo "$why"; exit 1; }
    one_at_a_time
    install
    ;;
run)
    python=${2:?which Python} && shift 2
    why=$(obstacle)
    [ -z "$why" ] || { echo "make test-archive cannot run here: $why" >&2; exit 1; }
    one_at_a_time >&2
    install
    stop
    start_database
    publish "$python"
    trap stop EXIT
    serve
    touch "$(dirname "$python")/../.tap-answered" # from here on a failure is the tests' own
    XPLABELS_TAP=$tap "$@" 9>&-
    ;;
*)
    echo "usage: $0 install | run PYTHON COMMAND..." >&2
    exit 2
    ;;
esac
