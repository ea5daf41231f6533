#!/usr/bin/env python3
"""A connector in as few lines as it takes: publishes records into Heddle's topic ingress.

Reads one JSON record a line from standard input. Each is checked against the JSON Schema of the topic, where
the package jsonschema is installed, and published with the sender's id as its key, so that one sender's
records stay in order. A line of the report is printed for every record that the brokers acknowledged:
from then on it is Heddle's to keep. A record that was not acknowledged is to be published again; what comes
twice is recognised by its account and message_id.

Exit code: 0 all published, 1 some record was refused or not acknowledged, 2 wrong usage.
"""

import argparse
import json
import pathlib
import sys

from confluent_kafka import KafkaException, Producer

try:
    import jsonschema
except ImportError:
    jsonschema = None

SCHEMA = pathlib.Path(__file__).resolve().parents[3] / "schemas" / "json" / "ingress.json"
# What a record may have, see the schema's description. The broker's own limit is higher.
MAX_BYTES = 262_144


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--brokers", default="127.0.0.1:9092", help="host:port, separated by commas (%(default)s)")
    parser.add_argument("--topic", default="heddle.ingress", help="its name with the cluster's prefix (%(default)s)")
    parser.add_argument("--schema", type=pathlib.Path, default=SCHEMA, help="JSON Schema of a record (%(default)s)")
    parser.add_argument("--timeout", type=float, default=30, metavar="SECONDS",
                        help="how long a record may wait for its acknowledgement (%(default)s)")
    return parser.parse_args()


def validator(path):
    """Returns what finds the faults of a record."""
    if jsonschema is None:
        print("jsonschema is not installed: records are published unchecked", file=sys.stderr)
        return lambda record: []
    checker = jsonschema.Draft202012Validator(json.loads(path.read_text()))

    def told(error):
        # Of several shapes, the one of this "type" tells what is wrong.
        shapes = {}
        for within in error.context:
            shapes.setdefault(within.schema_path[0], []).append(within)
        meant = [errors for errors in shapes.values() if all(e.validator != "const" for e in errors)]
        if len(meant) == 1:
            return [text for within in meant[0] for text in told(within)]
        best = jsonschema.exceptions.best_match([error])
        return [f"{best.json_path}: {best.message}"]

    return lambda record: [text for error in checker.iter_errors(record) for text in told(error)]


def key(record):
    """The Kafka key: an id that this connector has in all records of a sender.

    Of a status, which has no sender, the message: one message's statuses stay in order.
    """
    sender = record.get("from") or {}
    ids = (sender.get(field) for field in ("phone", "user_id", "parent_user_id"))
    return next(filter(None, ids), None) or str(record.get("message_id"))


def read(line, faults):
    """Returns a line's record, or raises ValueError with what is wrong."""
    record = json.loads(line)
    if not isinstance(record, dict):
        raise ValueError("a record is a JSON object")
    if len(line.encode()) > MAX_BYTES:
        raise ValueError(f"a record has at most {MAX_BYTES} bytes")
    found = faults(record)
    if found:
        raise ValueError("; ".join(found))
    return record


def main():
    args = arguments()
    faults = validator(args.schema)
    producer = Producer({
        "bootstrap.servers": args.brokers,
        "client.id": "heddle-example-connector",
        "reconnect.backoff.ms": 1000,
        # Acknowledged is what every replica in sync has, and the client's own retries neither double a
        # record nor change the order. The partitioner is free: the engine looks into the record.
        "acks": "all",
        "enable.idempotence": True,
        "compression.type": "zstd",
        "delivery.timeout.ms": int(args.timeout * 1000),
    })
    failed = 0

    def report(message_id):
        def delivered(error, message):
            nonlocal failed
            if error is not None:
                failed += 1
                print(f"{message_id}: not published: {error}", file=sys.stderr)
            else:
                print(f"{message_id}: {message.topic()}/{message.partition()} at {message.offset()}", flush=True)

        return delivered

    for number, line in enumerate(sys.stdin, start=1):
        line = line.strip()
        if not line:
            continue
        try:
            record = read(line, faults)
        except ValueError as error:
            failed += 1
            print(f"line {number}: refused: {error}", file=sys.stderr)
            continue
        while True:
            try:
                producer.produce(args.topic, value=line.encode(), key=key(record).encode(),
                                 on_delivery=report(record.get("message_id")))
                break
            except BufferError:
                # More than the brokers take now: wait for some of it to be acknowledged.
                producer.poll(0.5)
        producer.poll(0)
    # Every report comes within the delivery timeout.
    left = producer.flush(args.timeout + 5)
    return 1 if failed or left else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (OSError, KafkaException) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
