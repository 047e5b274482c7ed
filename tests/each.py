"""Run a script once for each list of arguments, in one process; prints a line of JSON for each.

python tests/each.py SCRIPT '[["--seed", "-1"], ["--epochs", "0"]]'
"""

import contextlib
import io
import json
import runpy
import sys
import traceback
from pathlib import Path

script, lists = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, str(Path(script).parent))
for arguments in lists:
    sys.argv = [script, *arguments]
    stderr, status = io.StringIO(), 0
    with contextlib.redirect_stderr(stderr), contextlib.redirect_stdout(io.StringIO()):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as exit_:  # what Python does with it: a text goes to stderr
            status = exit_.code if isinstance(exit_.code, int) else 1
            if isinstance(exit_.code, str):
                print(exit_.code, file=stderr)
        except BaseException:
            traceback.print_exc(file=stderr)
            status = 1
    print(json.dumps({"status": status, "stderr": stderr.getvalue()}), flush=True)
