#!/usr/bin/env bash
# Makes an image of the redis-server on this machine, for where none can be pulled, and prints its
# name: IDEMPOTENT_IMAGES=$(verify/integration/image.sh) go -C verify/integration test ./...
set -euo pipefail

name=${1:-idempotent-local/redis:$(redis-server --version | sed -n 's/.* v=\([0-9.]*\).*/\1/p')}
server=$(command -v redis-server)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

install -D "$server" "$root/usr/bin/redis-server"
# A library's path as the loader looks for it, with what is there.
for library in $(ldd "$server" | grep -o '/[^ ]*'); do
  install -D "$library" "$root$library"
done
mkdir -p "$root/data" "$root/tmp"

tar -C "$root" -c . | docker import \
  --change 'ENTRYPOINT ["/usr/bin/redis-server"]' \
  --change 'WORKDIR /data' \
  --change 'EXPOSE 6379' \
  - "$name" >/dev/null
echo "$name"
