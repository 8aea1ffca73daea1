#!/usr/bin/env bash
# A real TAP server (DaCHS on PostgreSQL, from Debian) on loopback, publishing the made archive.
#   serve.sh start PYTHON   install what is missing, publish, serve at http://127.0.0.1:8080/tap
#   serve.sh stop           stop serving
# It must run as root on Debian or Ubuntu, and changes the machine: packages, a database cluster.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
tap=http://127.0.0.1:8080/tap

as_gavo() { su gavo -s /bin/bash -c "$*"; }

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "make test-archive installs Debian packages: it needs root and apt-get" >&2
    exit 1
fi

install() {
    export DEBIAN_FRONTEND=noninteractive
    command -v dachs >/dev/null && return
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    start_database
    # its set-up makes a database, so the cluster must run before it is configured
    apt-get install -y -qq --no-install-recommends gavodachs2-server curl >/dev/null
}

start_database() {
    local version name port status rest
    pg_lsclusters --no-header | while read -r version name port status rest; do
        [[ $status == online* ]] || pg_ctlcluster "$version" "$name" start
    done
}

publish() {
    local inputs
    inputs=$(as_gavo dachs config inputsDir)
    "$1" "$here/publish.py" "$inputs"
    chown -R gavo "$inputs/gaiadr3" "$inputs/gaiadr1"
    as_gavo dachs --ui stingy import gaiadr3/q
    as_gavo dachs --ui stingy import gaiadr1/q
}

case "${1:-}" in
start)
    install
    start_database
    publish "${2:?which Python}"
    as_gavo dachs serve stop >/dev/null 2>&1 || true
    as_gavo dachs serve start
    for _ in $(seq 60); do
        curl --silent --fail --output /dev/null "$tap/availability" && exit 0
        sleep 1
    done
    echo "DaCHS does not answer at $tap" >&2
    exit 1
    ;;
stop)
    as_gavo dachs serve stop
    ;;
*)
    echo "usage: $0 start PYTHON | stop" >&2
    exit 2
    ;;
esac
