"""The model server for trying by hand: ``python -m tests.model_server --script turns.json --port-file port``.

The script is a JSON list of turns, ``[{"write": ["a.txt", "hello"]}, {"text": "Done."}]``; requests are printed, and
kept as JSON lines with ``--requests``.
"""

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.model_server.script import Script
from tests.model_server.server import ModelServer


def main() -> int:
    parser = argparse.ArgumentParser(prog="model_server", description=__doc__)
    parser.add_argument("--script", type=Path, required=True)
    parser.add_argument("--port-file", type=Path, help="where the port is written once it listens")
    parser.add_argument("--requests", type=Path, help="where the requests are written at the end")
    options = parser.parse_args()
    ended = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, ended)
    script = Script.from_file(options.script)
    with ModelServer(*script.turns) as server:
        if options.port_file:
            options.port_file.write_text(f"{server.port}\n")
        print(server.url, flush=True)
        signal.sigwait(ended)
        asked = server.asked
    if options.requests:
        options.requests.write_text("".join(json.dumps(item.as_dict()) + "\n" for item in asked))
    return 0


if __name__ == "__main__":
    sys.exit(main())
