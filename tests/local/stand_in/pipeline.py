"""A stand-in for the services: the command line that the local stack uses, and nothing behind it.

Each start and each clean end is a line in the file that STAND_IN_TRACE names. A file
`<command>.broken` beside it makes that command end at once.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

TRACE = Path(os.environ["STAND_IN_TRACE"])


def trace(line: str) -> None:
    with TRACE.open("a") as file:
        file.write(line + "\n")


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def serve(name: str, port: str) -> None:
    server = HTTPServer(("127.0.0.1", int(os.environ[port])), Ready)

    def stop(*_: object) -> None:
        trace(f"stop {name}")
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()


if __name__ == "__main__":
    command = sys.argv[1]
    trace(f"start {command}")
    if TRACE.with_name(f"{command}.broken").exists():
        print(f"the {command} is broken")
        sys.exit(3)
    if command == "worker" and sys.argv[2] == "projections":
        assert sys.argv[3:] == ["--ops-port", os.environ["STREAMBANK_PROJECTOR_PORT"]]
        serve("projector", "STREAMBANK_PROJECTOR_PORT")
    elif command == "worker" and sys.argv[2] == "beside":
        assert sys.argv[3:] == ["--ops-port", os.environ["STREAMBANK_BESIDE_PORT"]]
        serve("beside", "STREAMBANK_BESIDE_PORT")
    elif command == "worker":
        assert sys.argv[2:] == ["money"]
        assert os.environ["STREAMBANK_STATIC_MEMBERSHIP"] == "true"
        serve("worker", "STREAMBANK_OPS_PORT")
    elif command == "gateway":
        serve("gateway", "STREAMBANK_GATEWAY_PORT")
    elif command == "create-admin":
        given = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
        password = Path(given["--password-file"])
        assert password.stat().st_mode & 0o777 == 0o600
        trace(f"admin {given['--email']} {password.read_text()}")
