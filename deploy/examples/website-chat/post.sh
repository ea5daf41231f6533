#!/bin/sh
# Posts a visitor's message to channel `http`, signed as Standard Webhooks say. Needs curl, openssl and od.
#
#   SHOP_WEBHOOK_SECRET=whsec_... ./post.sh 'When are you open?' [VISITOR] [URL]
set -eu
text=$1
visitor=${2:-visitor-7}
url=${3:-http://127.0.0.1:8080/webhooks/http/website}

id=msg_$(openssl rand -hex 12)
seconds=$(date +%s)
body=$(printf '{"type":"message.received","timestamp":"%s","data":{"id":"%s","from":{"id":"%s","name":"Ann"},"text":"%s"}}' \
    "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$id" "$visitor" "$text")

key=$(printf %s "${SHOP_WEBHOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
signature=$(printf %s "$id.$seconds.$body" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)

curl --silent --show-error --write-out '%{http_code}\n' "$url" \
    --header 'content-type: application/json' \
    --header "webhook-id: $id" \
    --header "webhook-timestamp: $seconds" \
    --header "webhook-signature: v1,$signature" \
    --data-raw "$body"
