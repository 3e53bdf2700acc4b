#!/usr/bin/env bash
# Installs the Autobahn Testsuite into DIR, unless it is there already; its program is then DIR/env/bin/wstest.
#
#   install.sh DIR        install
#   install.sh --find     print the CPython 2.7 that it would use
#
# Exits with 2 where there is no CPython 2.7. PYTHON27 names one that is not found by itself.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

find_python() {
  local candidate versions=${PYENV_ROOT:-$HOME/.pyenv}/versions
  for candidate in "${PYTHON27:-}" python2.7 "$versions"/2.7*/bin/python2.7; do
    # A program of that name may be a shim without a Python behind it: ask it.
    if [[ -n $candidate ]] && "$candidate" -c 'import sys, pip; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "no CPython 2.7 with pip found, which the Autobahn Testsuite needs; install one, or set PYTHON27" >&2
  exit 2
}

python=$(find_python)
if [[ ${1:?usage: install.sh DIR} == --find ]]; then
  echo "$python"
  exit
fi

dir=$1
if cmp -s "$here/requirements.txt" "$dir/installed"; then
  exit
fi
rm -rf "$dir"
mkdir -p "$dir"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_PYTHON_VERSION_WARNING=1 PYTHONWARNINGS=ignore
"$python" -m pip install -q --target "$dir/virtualenv" 'virtualenv<20.22'
PYTHONPATH=$dir/virtualenv "$python" -m virtualenv -q "$dir/env"
"$dir/env/bin/pip" install -q -r "$here/requirements.txt"
"$dir/env/bin/pip" install -q --no-deps autobahntestsuite==25.10.1
cp "$here/requirements.txt" "$dir/installed"
