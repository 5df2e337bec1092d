# Source this file. It provides a temporary PostgreSQL server on a Unix socket.

# Starts the server and sets `postgres` to its URL.
start_postgres() {
    local bin unprivileged=()
    bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -n 1 || command -v initdb)")
    postgres_home=$(mktemp -d)
    if [ "$(id -u)" -eq 0 ]; then
        chown nobody "$postgres_home"
        unprivileged=(setpriv --reuid=nobody --regid=nogroup --clear-groups)
    fi
    (cd / && "${unprivileged[@]}" "$bin/initdb" --auth=trust --username=postgres --no-sync --pgdata "$postgres_home/data") >/dev/null
    (cd / && exec "${unprivileged[@]}" "$bin/postgres" -F -c listen_addresses= -k "$postgres_home" -D "$postgres_home/data") 2>/dev/null &
    postgres_server=$!
    postgres="postgres:///postgres?user=postgres&host=$postgres_home"
    for _ in $(seq 100); do
        "$bin/pg_isready" --quiet --dbname "$postgres" && return
        sleep 0.1
    done
    echo "PostgreSQL does not start" >&2
    return 1
}

# Stops the server, if it was started, and removes its files.
stop_postgres() {
    [ -z "${postgres_server:-}" ] || { kill -INT "$postgres_server" && wait "$postgres_server" || true; }
    [ -z "${postgres_home:-}" ] || rm -rf "$postgres_home"
}
