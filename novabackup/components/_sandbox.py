"""Entry point of child processes: sets its own limits, then runs one parser on an untrusted file.

Started by ``_child.py`` as ``python -I -S _sandbox.py <request as JSON>``. It imports nothing of novabackup, since
without ``site`` (``-S``) it is not on the path, and the start takes a tenth of the time.
"""

import json
import os
import resource
import runpy
import sys
from typing import Any


def _limit(kind: int, wanted: int) -> None:
    """Lower a limit of this process for good; a limit that is lower already stays."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(kind, (wanted, wanted))


def main() -> None:
    """Read the request, set the limits, run the script's ``look`` on standard input, write its answer as JSON."""
    request = json.loads(sys.argv[1])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, request["written"])
    _limit(resource.RLIMIT_CPU, request["cpu"])
    _limit(resource.RLIMIT_AS, request["memory"])
    # The stdlib stays first, so that no file next to the indexes can replace one of its modules.
    sys.path.extend(request["path"])
    try:
        script = runpy.run_path(request["script"])
    except ImportError as error:
        answer: dict[str, Any] = {"unavailable": str(error)}
    else:
        os.lseek(0, 0, os.SEEK_SET)
        try:
            answer = script["look"](request["arguments"])
        except MemoryError:
            answer = {"error": "it asks for more memory than a file of its size can need", "memory": True}
        except RecursionError:
            answer = {"error": "it is nested more deeply than any such file"}
        except Exception as error:  # noqa: BLE001 - whatever a damaged file raises is the result
            answer = {"error": f"{type(error).__name__}: {str(error)[:1000]}"}
    data = json.dumps(answer).encode()
    while data:
        data = data[os.write(1, data) :]
    # Skip the interpreter's shutdown: freeing what a hostile file built can take long, or crash.
    os._exit(0)


if __name__ == "__main__":
    main()
