#!/usr/bin/env python3
"""Receives replies of channel `http`: verifies each post as Standard Webhooks say and prints its text.

    SHOP_SIGNING_SECRET=whsec_... python3 receiver.py [PORT]

Needs nothing beside Python 3.
"""

import base64
import hashlib
import hmac
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

KEY = base64.b64decode(os.environ["SHOP_SIGNING_SECRET"].removeprefix("whsec_"))
TOLERANCE_SECONDS = 300
SEEN = {}  # webhook-id to its answer, so that a repetition is not shown twice; bounded below
REMEMBERED = 10_000


def is_signed(headers, body):
    """Whether one of the signatures holds and the attempt is not old."""
    identity, seconds = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not seconds.isdigit() or abs(time.time() - int(seconds)) > TOLERANCE_SECONDS:
        return False
    signed = hmac.new(KEY, f"{identity}.{seconds}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(signed).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected.encode(), one.encode()) for one in given)


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if not is_signed(self.headers, body):
            return self.answer(401, {"error": "signature"})
        identity = self.headers["webhook-id"]
        if identity not in SEEN:
            message = json.loads(body)["data"]
            print(f"to {message['to']['id']}: {message['text']}", flush=True)
            if len(SEEN) >= REMEMBERED:
                SEEN.pop(next(iter(SEEN)))
            SEEN[identity] = f"chat-{len(SEEN) + 1}"
        self.answer(200, {"id": SEEN[identity]})

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 9900
    print(f"receiving at http://127.0.0.1:{port}/replies", flush=True)
    HTTPServer(("127.0.0.1", port), Receiver).serve_forever()
