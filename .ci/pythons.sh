#!/usr/bin/env bash
# Runs tox environments with CPython 3.14 and 3.15 from Debian's suite "forky", in a root directory of its own.
# Usage: .ci/pythons.sh ENVIRONMENTS, such as py314,py315. Needs to be root, and debootstrap.
# The directory is kept in the cache for the next run; to make it takes about two minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ -z ${LHTTP_CI_UNSHARED:-} ]]; then
  # Mounts of a namespace of its own are gone when the script is.
  LHTTP_CI_UNSHARED=1 exec unshare --mount "$BASH" .ci/pythons.sh "$@"
fi

cache=${XDG_CACHE_HOME:-$HOME/.cache}/lhttp_tx
root=$cache/forky
packages=python3.14,python3.14-venv,python3.15,python3.15-venv,ca-certificates,git
if [[ ! -e $root/complete ]]; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n 1)
  rm -rf "$root"
  mkdir -p "$cache"
  # debootstrap may be older than the suite; its script is that of every newer one.
  debootstrap --variant=minbase --no-check-gpg --include="$packages" forky "$root" "$mirror" \
    /usr/share/debootstrap/scripts/sid >"$cache/forky.log" 2>&1 || { tail -n 20 "$cache/forky.log" >&2; exit 1; }
  touch "$root/complete"
fi

mount --bind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir -p "$root/src" "$root/etc/ssl/certs"
mount --bind "$PWD" "$root/src"
# What the machine knows of the network: names, the package index, and its certificates.
for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
  [[ ! -e $file ]] || cp -L "$file" "$root$file"
done
chroot "$root" bash -euc '
  cd /src
  export HOME=/root LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
  git config --global --add safe.directory /src
  [[ -x /opt/tox/bin/tox ]] || { python3.14 -m venv /opt/tox && /opt/tox/bin/pip install --quiet "tox>=4.22"; }
  TOX_PARALLEL_NO_SPINNER=1 /opt/tox/bin/tox run-parallel --parallel 1 --workdir /var/tmp/tox -e "$1" </dev/null
' bash "$1"
