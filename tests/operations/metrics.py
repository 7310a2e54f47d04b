"""Whether every metric that a dashboard or a rule names is in a scrape."""

import re
import sys

# What Prometheus itself, or PromQL, brings.
OTHERS = {"up", "le", "job", "instance"}
# Only where HTTPS is served; failures.py reads it.
SOMETIMES = {"corelay_certificate_expires_timestamp_seconds"}
NAME = re.compile(r"\b((?:corelay|webrtc|process)_[a-z0-9_]+)")


def main(scrape, *documents):
    with open(scrape, encoding="utf-8") as file:
        there = {re.split(r"[{ ]", line)[0] for line in file if not line.startswith("#")}
    assert len(there) > 80, f"only {len(there)} metrics"
    missing = set()
    for document in documents:
        with open(document, encoding="utf-8") as file:
            named = set(NAME.findall(file.read())) - OTHERS - SOMETIMES
        assert named, f"{document} names none"
        missing |= {(document, name) for name in named if name not in there}
    assert not missing, missing


main(*sys.argv[1:])
