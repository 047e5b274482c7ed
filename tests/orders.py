"""Print, for three epochs, in which order a script shows its training rows to the network.

python tests/orders.py SCRIPT --data FILE
"""

import json
import runpy
import sys
import zlib
from pathlib import Path

import keras

script, options = sys.argv[1], sys.argv[2:]
sys.path.insert(0, str(Path(script).parent))


def fit(model, rows, initial_epoch=0, **_):
    orders = []
    for _ in range(3):
        checksum = 0
        for _, y, *_ in rows:
            checksum = zlib.crc32(y.numpy().tobytes(), checksum)
        orders.append(checksum)
    print(json.dumps(orders))
    sys.exit()


keras.Model.fit = fit
sys.argv = [script, *options]
runpy.run_path(script, run_name="__main__")
