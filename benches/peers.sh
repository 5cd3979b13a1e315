#!/bin/sh
# Compares Sellable with Redis and PostgreSQL on this machine, and writes benches/RESULTS.md.
#
#   benches/peers.sh                              # all of it: about six minutes once it is built
#   benches/peers.sh --rounds 3 --ms 500          # shorter, see the head of benches/peers.rs
#   benches/peers.sh --only reserve               # one part, to the standard output
#   benches/peers.sh --json                       # the same as JSON, to the standard output
#
# On Debian, it installs what is missing of redis-server and postgresql from the distribution's
# packages, and does not let their services start: the benchmark starts servers of its own, on free
# ports of the loopback interface and on data below target/, and ends them. What is installed
# already is neither stopped nor touched.
set -eu
cd "$(dirname "$0")/.."

say() { echo "peers.sh: $*" >&2; }

missing=
command -v redis-server >/dev/null || missing="$missing redis-server"
command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 ||
    missing="$missing postgresql"

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        say "missing:$missing. This script installs them on Debian and its relatives only; install" \
            "Redis 7 and PostgreSQL 15, or later ones, yourself, and put redis-server, postgres and" \
            "initdb on the PATH."
        exit 1
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then as_root=sudo; fi
    say "installing$missing, without starting their services"
    # Packages ask this file whether they may start what they bring. It is there only for now, and
    # one that is there already is left as it is.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        forget() { $as_root rm -f "$policy"; }
        trap forget EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    $as_root apt-get update -q >&2
    # shellcheck disable=SC2086 # one word for each package
    $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get install -q -y --no-install-recommends $missing >&2
    if [ -n "$(trap)" ]; then
        forget
        trap - EXIT HUP INT TERM
    fi
    say "their services would start with the machine; 'systemctl disable redis-server postgresql'" \
        "prevents that"
fi

is_whole=yes
for argument; do
    case "$argument" in --only | --json) is_whole= ;; esac
done

if [ -z "$is_whole" ]; then
    exec cargo bench --workspace --bench peers -- "$@"
fi

out=target/peers
mkdir -p "$out"
cargo bench --workspace --bench intake --bench peers --no-run
# Nothing else is measured while JetStream is.
cargo bench --workspace --bench intake -- --rounds 3 >"$out/intake.md"
cat "$out/intake.md" >&2
cargo bench --workspace --bench peers -- --intake "$PWD/$out/intake.md" "$@" >"$out/RESULTS.md"
mv "$out/RESULTS.md" benches/RESULTS.md
cat benches/RESULTS.md
say "written to benches/RESULTS.md"
