#!/usr/bin/env bash
# Makes the virtual environment .venv hold one of the locked sets, every file checked against its hash.
#
#   install.sh serve   what the local tritonserver needs (about 300 MB)
#   install.sh dev     that, and training, export and tests (about 6 GB, most of it PyTorch's CUDA libraries)
#
# PYTHON names the interpreter (default python3). Missing Debian packages are installed when run as root;
# otherwise the message names them.
set -euo pipefail
cd "$(dirname "$0")/../.."
set_name=$1
locks=export/requirements
venv=.venv

fail() {
  printf 'refersam: %s\n' "$*" >&2
  exit 1
}

# apt_install WHY PACKAGE…
apt_install() {
  local why=$1
  shift
  if ! command -v apt-get >/dev/null; then
    fail "$why. On Debian these packages have it: $*"
  elif [ "$(id -u)" -ne 0 ]; then
    fail "$why. As root: apt-get install -y --no-install-recommends $*"
  fi
  printf 'refersam: %s; installing %s\n' "$why" "$*" >&2
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# The wheel's tritonserver has a Python stub for each minor version up to 3.13, and the locks begin at 3.11.
check_python() {
  local python=$1 version
  command -v "$python" >/dev/null || fail "no interpreter called $python. Name one: PYTHON=/usr/bin/python3.11 make …"
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  case $version in
    3.11 | 3.12 | 3.13) ;;
    *) fail "$python is Python $version; 3.11, 3.12 or 3.13 is needed. Name one: PYTHON=/usr/bin/python3.11 make …" ;;
  esac
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    apt_install "$python cannot make virtual environments" "python$version-venv"
  fi
}

# The stubs are linked against libpython, which the wheel brings for 3.13 alone.
check_libpython() {
  local python=$1 found
  found=$("$python" - <<'PY'
import ctypes, pathlib, sys, sysconfig

name = "libpython%d.%d.so.1.0" % sys.version_info[:2]
if sys.version_info[:2] == (3, 13) or (pathlib.Path(sysconfig.get_config_var("LIBDIR")) / name).exists():
    print("yes")
else:
    try:
        ctypes.CDLL(name)
        print("yes")
    except OSError:
        print(name.removesuffix(".so.1.0"))
PY
  )
  if [ "$found" != yes ]; then
    apt_install "$python has no shared $found.so.1.0, which Triton's Python backend is linked against" "$found"
  fi
}

check_test_tools() {
  if ! command -v chromium chromium-browser google-chrome >/dev/null; then
    apt_install "the browser test needs Chromium" chromium
  fi
  if [ ! -e "${REFERSAM_EMOJI_FONT:-/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf}" ]; then
    apt_install "the demo scenes are drawn from the font Noto Color Emoji" fonts-noto-color-emoji
  fi
  if ! printf '#include <stdio.h>\n#include <jpeglib.h>\n' | cc -E - >/dev/null 2>&1; then
    apt_install "the gateway image is built with libjpeg-turbo" gcc libc6-dev libjpeg62-turbo-dev
  fi
  if ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    apt_install "the tests of the store need PostgreSQL" postgresql
  fi
}

# uv does not read pip's settings; a machine whose package index is set for pip must work all the same.
pip_setting() {
  "$venv/bin/python" -m pip config get "global.$1" 2>/dev/null || true
}
settings_for_uv() {
  local index extra cert
  index=${PIP_INDEX_URL:-$(pip_setting index-url)}
  extra=${PIP_EXTRA_INDEX_URL:-$(pip_setting extra-index-url)}
  cert=${PIP_CERT:-$(pip_setting cert)}
  [ -z "$index" ] || export UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$index}
  [ -z "$extra" ] || export UV_INDEX=${UV_INDEX:-$extra}
  [ -z "$cert" ] || export SSL_CERT_FILE=${SSL_CERT_FILE:-$cert}
}

if [ ! -x "$venv/bin/python" ]; then
  check_python "${PYTHON:-python3}"
  "${PYTHON:-python3}" -m venv "$venv"
fi
check_libpython "$venv/bin/python"
[ "$set_name" != dev ] || check_test_tools

if ! cmp -s "$locks/bootstrap.txt" "$venv/.bootstrap"; then
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$locks/bootstrap.txt"
  cp "$locks/bootstrap.txt" "$venv/.bootstrap"
fi

settings_for_uv
# The locks are complete, so nothing is resolved; the one source package is built with the setuptools just installed.
"$venv/bin/uv" pip install --python "$venv/bin/python" --require-hashes --no-deps --no-build-isolation -r "$locks/$set_name.txt"
if [ "$set_name" = dev ]; then
  "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable export
fi
