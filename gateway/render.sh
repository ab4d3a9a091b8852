#!/bin/sh
# render.sh OUTPUT_DIR: write the gateway's nginx configuration from the environment.
# Run it with: nginx -p OUTPUT_DIR -c nginx.conf -g 'daemon off;'
set -eu

here=$(cd "$(dirname "$0")" && pwd)

fail() {
    echo "gateway: $1" >&2
    exit 2
}

[ $# -eq 1 ] || fail "usage: render.sh OUTPUT_DIR"
output=$1

# check NAME VALUE PATTERN SENTENCE: the whole value must match the extended regular expression.
check() {
    case $2 in
    *"
"*) fail "$1 $4" ;;
    esac
    printf '%s\n' "$2" | grep -Eq "^($3)\$" || fail "$1 $4"
}

number='[1-9][0-9]{0,5}'
host='[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]'

listen=${GATEWAY_LISTEN:-0.0.0.0:8080}
check GATEWAY_LISTEN "$listen" "(($host|\*):)?$number( +(($host|\*):)?$number)*" \
    "must be addresses as ADDRESS:PORT, separated by spaces"

base_path=${BASE_PATH:-prod}
base_path=${base_path#/}
base_path=${base_path%/}
check BASE_PATH "$base_path" '[A-Za-z0-9_-]+' "must be one path segment of letters, digits, _ and -"
for resource in ping auth users roles api-keys audit checkpoint checkpoints endpoint endpoints inference inferences webhooks \
    dataset datasets model models train trains training trainings; do
    [ "$base_path" != "$resource" ] || fail "BASE_PATH must not be the name of a resource"
done

max_body_mb=${MAX_BODY_MB:-32}
check MAX_BODY_MB "$max_body_mb" "$number" "must be a whole number of megabytes"

timeout=${GATEWAY_TIMEOUT_SECONDS:-60}
check GATEWAY_TIMEOUT_SECONDS "$timeout" "$number" "must be a whole number of seconds"

client_timeout=${GATEWAY_CLIENT_TIMEOUT_SECONDS:-10}
check GATEWAY_CLIENT_TIMEOUT_SECONDS "$client_timeout" "$number" "must be a whole number of seconds"

workers=${GATEWAY_WORKERS:-auto}
check GATEWAY_WORKERS "$workers" "auto|$number" "must be auto or a whole number"

access_log=${GATEWAY_ACCESS_LOG:-/dev/stdout}
check GATEWAY_ACCESS_LOG "$access_log" '[A-Za-z0-9_./-]+' "must be a path of letters, digits, _ . / and -, or off"

user=${GATEWAY_USER:-$(id -un 2>/dev/null || echo root)}
check GATEWAY_USER "$user" '[A-Za-z0-9_-]+' "must be the name of a user"

resolver=${RESOLVER:-}
if [ -n "$resolver" ]; then
    check RESOLVER "$resolver" "($host)(:$number)?( +($host)(:$number)?)*" "must be addresses of DNS servers"
fi

proxies=${TRUSTED_PROXIES:-}
if [ -n "$proxies" ]; then
    check TRUSTED_PROXIES "$proxies" '[0-9A-Fa-f.:]+(/[0-9]{1,3})?([ ,]+[0-9A-Fa-f.:]+(/[0-9]{1,3})?)*' \
        "must be addresses or networks (10.0.0.0/8), separated by spaces or commas"
fi

origins=${CORS_ORIGINS:-}
if [ -n "$origins" ]; then
    check CORS_ORIGINS "$origins" \
        "\*|https?://($host)(:$number)?([ ,]+https?://($host)(:$number)?)*" \
        "must be origins (https://app.example.org), separated by spaces or commas, or *"
fi

certificate=${GATEWAY_TLS_CERT:-}
key=${GATEWAY_TLS_KEY:-}
if [ -n "$certificate$key" ]; then
    [ -n "$certificate" ] && [ -n "$key" ] || fail "set both GATEWAY_TLS_CERT and GATEWAY_TLS_KEY, or neither"
    for name in GATEWAY_TLS_CERT GATEWAY_TLS_KEY; do
        eval "path=\$$name"
        check "$name" "$path" '/[A-Za-z0-9_./@+-]+' "must be an absolute path of letters, digits and _ . / @ + -"
        [ -r "$path" ] || fail "$name: $path cannot be read"
    done
fi

mkdir -p "$output/temp"
chmod 755 "$output/temp" 2>/dev/null || true

write_upstreams() {
    for name in users checkpoints endpoints inference datasets training; do
        variable=$(echo "$name" | tr '[:lower:]' '[:upper:]')_UPSTREAM
        eval "servers=\${$variable:-}"
        [ -n "$servers" ] || fail "set $variable: the servers of $name, as 'server users:8000 resolve;'"
        check "$variable" "$servers" \
            "server ($host)(:$number)?( [a-z_]+(=[A-Za-z0-9]+)?)*;( *server ($host)(:$number)?( [a-z_]+(=[A-Za-z0-9]+)?)*;)*" \
            "must be servers as in 'server 10.0.0.1:8000; server 10.0.0.2:8000;'"
        case "$servers" in
        *resolve*) [ -n "$resolver" ] || fail "$variable has 'resolve', so set RESOLVER: a DNS server" ;;
        esac
        printf 'upstream %s {\n    zone %s 256k;\n    %s\n    keepalive 64;\n    keepalive_timeout 60s;\n}\n' \
            "$name" "$name" "$servers"
    done
}

write_resolver() {
    [ -z "$resolver" ] || printf 'resolver %s valid=1s ipv6=off;\nresolver_timeout 2s;\n' "$resolver"
}

# Who the client is behind trusted proxies, and which origins may read answers in a browser.
write_clients() {
    separated=$(echo "$proxies" | tr ',' ' ')
    for network in $separated; do
        printf 'set_real_ip_from %s;\n' "$network"
    done
    printf 'real_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n'
    printf 'geo $realip_remote_addr $from_trusted_proxy {\n    default 0;\n'
    for network in $separated; do
        printf '    %s 1;\n' "$network"
    done
    printf '}\nmap "$from_trusted_proxy $http_x_forwarded_proto" $client_scheme {\n'
    printf '    "1 http" http;\n    "1 https" https;\n    default $scheme;\n}\n'
    printf 'map $http_origin $allowed_origin {\n'
    if [ "$origins" = "*" ]; then
        printf '    default "*";\n'
    else
        printf '    default "";\n'
        for origin in $(echo "$origins" | tr ',' ' '); do
            printf '    "%s" $http_origin;\n' "$origin"
        done
    fi
    printf '}\nmap "$request_method $allowed_origin" $preflight {\n    "~^OPTIONS ." 1;\n    default "";\n}\n'
    printf 'map $preflight $allowed_methods {\n    1 "GET, POST, PUT, DELETE, OPTIONS";\n    default "";\n}\n'
    printf 'map $preflight $allowed_headers {\n    1 "Authorization, Content-Type, Idempotency-Key, '
    printf 'Username, X-Api-Key, X-Request-Id";\n    default "";\n}\n'
    printf 'map $preflight $allowed_seconds {\n    1 600;\n    default "";\n}\n'
    printf 'map $allowed_origin $exposed_headers {\n    "" "";\n    default "Retry-After, X-Request-Id";\n}\n'
}

write_listen() {
    for address in $listen; do
        if [ -n "$certificate" ]; then
            printf 'listen %s ssl;\n' "$address"
        else
            printf 'listen %s;\n' "$address"
        fi
    done
    if [ -n "$certificate" ]; then
        printf 'http2 on;\nssl_certificate %s;\nssl_certificate_key %s;\n' "$certificate" "$key"
        printf 'ssl_protocols TLSv1.2 TLSv1.3;\nssl_session_cache shared:tls:2m;\n'
    fi
}

log_line="access_log $access_log json;"
[ "$access_log" != off ] || log_line="access_log off;"
user_line=
if [ "$(id -u)" = 0 ]; then
    user_line="user $user $(id -gn "$user" 2>/dev/null || echo "$user");"
fi
hsts=
if [ -n "$certificate" ]; then
    hsts='add_header Strict-Transport-Security "max-age=31536000" always;'
fi

write_upstreams >"$output/upstreams.conf"
write_resolver >"$output/resolver.conf"
write_clients >"$output/clients.conf"
write_listen >"$output/listen.conf"
for template in nginx locations proxy response_headers; do
    sed -e "s|@USER@|$user_line|" -e "s|@WORKERS@|$workers|" -e "s|@ACCESS_LOG@|$log_line|" \
        -e "s|@CLIENT_TIMEOUT@|$client_timeout|" -e "s|@MAX_BODY_MB@|$max_body_mb|g" \
        -e "s|@BASE_PATH@|$base_path|g" -e "s|@TIMEOUT@|$timeout|" -e "s|@HSTS@|$hsts|" \
        "$here/$template.conf.template" >"$output/$template.conf"
done
for part in require_identity require_key preflight ask_users ask_again again; do
    cp "$here/$part.conf" "$output/$part.conf"
done
