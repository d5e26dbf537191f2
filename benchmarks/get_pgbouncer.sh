#!/bin/sh
# Unpack Debian 13's pgbouncer (1.24.1) with the libraries that it needs into ./.peers/, for `make bench`.
#
# Nothing is installed and apt's own lists stay as they are: a separate source list and a separate lists folder
# are used. The benchmarks find the result by themselves. Needs apt-get and dpkg (any Debian or Ubuntu, x86-64).
set -eu

suite=trixie
packages="pgbouncer libc6 libevent-2.1-7t64 libcares2 libssl3t64 libpam0g libsystemd0 libcap2 liblz4-1 liblzma5
    libzstd1 libgcrypt20 libgpg-error0 libaudit1 libcap-ng0 zlib1g"

cd "$(dirname "$0")/.."
peers="$PWD/.peers"
root="$peers/pgbouncer"
if [ -x "$root/usr/sbin/pgbouncer" ]; then
    echo "already there: $root (remove it to fetch again)"
    exit 0
fi

work="$peers/download"
rm -rf "$work" "$root.new"
mkdir -p "$work/sources" "$work/lists/partial" "$work/debs" "$root.new"
trap 'rm -rf "$work" "$root.new"' EXIT
cat >"$work/sources/peers.sources" <<SOURCES
Types: deb
URIs: http://deb.debian.org/debian
Suites: $suite
Components: main
Architectures: amd64
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES

apt() {
    # The sandbox user of apt cannot read a folder below root's home: the download then runs as the caller.
    apt-get -q -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts="$work/sources" \
        -o Dir::State::Lists="$work/lists" -o Dir::Cache::pkgcache="" -o Dir::Cache::srcpkgcache="" \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

apt update
# Word splitting of the list is wanted here.
# shellcheck disable=SC2086
(cd "$work/debs" && apt download $packages)
for deb in "$work"/debs/*.deb; do
    dpkg -x "$deb" "$root.new"
done
mv "$root.new" "$root"

libraries="$root/usr/lib/x86_64-linux-gnu"
"$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$root/usr/sbin/pgbouncer" --version
