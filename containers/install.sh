#!/bin/sh
# Makes an image of a base: both engines run it, with the recipe in /opt/prefdist/recipe and the wheels in /mnt. Nothing is
# fetched but missing system packages.
#     install.sh LOCK PACKAGE...
set -eu
cd /opt/prefdist/recipe
lock=$1
shift

# Debian packages of the base's own release: none when the base has them.
if ! dpkg --status "$@" > /dev/null 2>&1; then
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
    rm -rf /var/lib/apt/lists/*
fi

python3 -m venv /opt/venv
pip() { /opt/venv/bin/python -m pip --isolated --disable-pip-version-check "$@"; }
# torch with its dependencies: which they are depends on its build (CPU, CUDA).
if [ -e torch.txt ]; then
    pip install --no-cache-dir --no-index --find-links /mnt -c "$lock" -r torch.txt
fi
pip install --no-cache-dir --no-index --find-links /mnt --no-deps -r "$lock"

# The code that runs is the checkout's: the image has the program's name only.
install -m 755 prefdist /opt/venv/bin/prefdist
# The identity of the image is that of its recipe: builds of one recipe differ in their bytes.
LC_ALL=C sha256sum -- * | sha256sum | cut -c 1-12 > /opt/prefdist/identity
