"""Say what deep learning finds on this machine, and on which device a matrix product really runs.

Book: chapter 1, "Installing TensorFlow and Keras": the product of a 2 x 3 and a 3 x 2 matrix must
be [[22, 28], [49, 64]], and the device that computed it must be the GPU. The book reads the device
from TensorFlow's placement log; here it is asked for and printed, with versions, driver, and how
fast CPU and GPU multiply two large matrices.

    python chapter01/check_gpu.py                  # a report; a machine with no GPU passes
    python chapter01/check_gpu.py --require-gpu    # fails unless a GPU does the work

Exit status: 0 when all is well, 1 when an item says FAIL. Without a GPU it also prints what to try.
Runs on the TensorFlow and JAX backends (KERAS_BACKEND=jax needs no TensorFlow) in about 10 seconds
on 2 CPU cores. Tested with Python 3.11, Keras 3.15, TensorFlow 2.21 and JAX 0.10.
"""

import argparse
import contextlib
import importlib
import importlib.metadata
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FIRST = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], dtype="float32")
SECOND = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype="float32")
PRODUCT = [[22, 28], [49, 64]]
SIZE = 2048  # rows and columns of the large product: enough to keep a GPU busy, 0.1 s on 2 cores
MIN_DRIVER = 525  # the oldest driver branch that runs CUDA 12
MIN_CAPABILITY, MAX_CAPABILITY = 6.0, 9.0  # what TensorFlow 2.20 and 2.21 have kernels for
REINSTALL = "pip install -r requirements.txt 'tensorflow[and-cuda]'"


def report(status, item, text):
    """Print one line of the table: STATUS is OK, FAIL, or -- for what does not apply."""
    print(f"{status:<5} {item:<10} {text}", flush=True)


@contextlib.contextmanager
def capture_log():
    """Yield a file that receives stderr, also what C++ writes; replay it if an exception escapes.

    TensorFlow 2.21 prints several lines while it is imported, whatever its log level is; here
    they are kept for the case that they say why the GPU was not found.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile("w+", errors="replace") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield log
        except BaseException:
            log.seek(0)
            os.write(saved, log.read().encode())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def load_keras():
    """Import Keras and its backend; return both modules. Raises ImportError when one is missing."""
    # Set before the import, after it they are ignored: drop INFO but keep the warnings that name a
    # missing library; and let JAX, which takes 75 % of the GPU at once, take memory as it needs it.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "1"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    keras = importlib.import_module("keras")
    backend = importlib.import_module(keras.backend.backend())
    if backend.__name__ not in ("tensorflow", "jax"):
        raise ImportError(f"this check knows tensorflow and jax, not {backend.__name__}")
    return keras, backend


def find_gpus(backend):
    """Return the GPUs that the backend can use: a list of (name, compute capability as a float)."""
    if backend.__name__ == "jax":
        devices = [device for device in backend.devices() if device.platform == "gpu"]
        return [(d.device_kind, float(getattr(d, "compute_capability", 0))) for d in devices]
    gpus = []
    for device in backend.config.list_physical_devices("GPU"):
        # Otherwise this check takes nearly all memory of a GPU on which something else may run.
        backend.config.experimental.set_memory_growth(device, True)
        details = backend.config.experimental.get_device_details(device)
        capability = "{}.{}".format(*details.get("compute_capability", (0, 0)))
        gpus.append((details.get("device_name", device.name), float(capability)))
    return gpus


def find_cuda_build(backend):
    """Return the CUDA and cuDNN that the backend was built for, or None for a CPU-only build."""
    if backend.__name__ == "tensorflow":
        build = backend.sysconfig.get_build_info()
        cuda, cudnn = build.get("cuda_version"), build.get("cudnn_version")
        return f"CUDA {cuda}, cuDNN {cudnn}" if build.get("is_cuda_build") else None
    for plugin in ("jax-cuda13-plugin", "jax-cuda12-plugin"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return f"{plugin} {importlib.metadata.version(plugin)}"
    return None


def query_driver():
    """Ask nvidia-smi about the first GPU; return a dict, or a string saying why there is none."""
    fields = ["driver_version", "name", "compute_cap", "memory.used", "memory.total"]
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        missing = isinstance(error, FileNotFoundError)
        return "no nvidia-smi on this machine" if missing else f"nvidia-smi fails: {error}"
    lines = (answer.stdout.strip() or answer.stderr.strip() or "no output").splitlines()
    values = lines[0].split(", ")
    if answer.returncode or len(values) != len(fields):
        return f"nvidia-smi fails: {lines[0]}"
    return dict(zip(fields, values, strict=True))


def read_number(gpu, field):
    """Return a number that nvidia-smi gave ("580.95.05" counts as 580.95), or nan for "[N/A]"."""
    match = re.match(r"\d+(\.\d+)?", gpu.get(field, "")) if isinstance(gpu, dict) else None
    return float(match.group()) if match else float("nan")


def multiply_matrices(keras):
    """Return the product of the book's two matrices, and the device that computed it."""
    product = keras.ops.matmul(keras.ops.array(FIRST), keras.ops.array(SECOND))
    # TensorFlow writes /job:localhost/replica:0/task:0/device:GPU:0, JAX cuda:0.
    device = str(product.device).rsplit("device:", maxsplit=1)[-1]
    return keras.ops.convert_to_numpy(product).tolist(), device


def time_product(keras, device, repeats=5):
    """Return the median seconds of one SIZE x SIZE float32 matrix product on DEVICE ("cpu:0")."""
    with keras.device(device):
        matrix = keras.random.normal((SIZE, SIZE), seed=1)
        seconds = []
        for _ in range(repeats + 2):
            start = time.perf_counter()
            product = keras.ops.matmul(matrix, matrix)
            float(product[0, 0])  # a GPU works on in the background: wait for the result
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])  # the first two warm up: compilation, memory


def suggest_remedies(backend_name, cuda_build, gpu, log_text=""):
    """Return what to try: the usual causes of a GPU that is not used, as far as they apply here.

    GPU is what query_driver returned, LOG_TEXT what the backend wrote while it was loaded.
    """
    system, no_driver = platform.system(), isinstance(gpu, str)
    in_wsl = "microsoft" in platform.release().lower()
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    capability = read_number(gpu, "compute_cap")
    use_jax = "pip install 'jax[cuda12]'" if backend_name == "jax" else REINSTALL
    causes = [
        (visible in ("", "-1"), f'CUDA_VISIBLE_DEVICES is "{visible}" and hides the GPU: unset it'),
        (system == "Windows", "TensorFlow uses no GPU on Windows itself: run it on Ubuntu in WSL2"),
        (system == "Darwin", "macOS has no CUDA: use the CPU, or a GPU machine in the cloud"),
        (no_driver and in_wsl, "WSL: install NVIDIA's driver in Windows, none in Linux"),
        (no_driver and in_container, "container: start it with --gpus all"),
        (no_driver and system == "Linux" and not (in_wsl or in_container), "no working driver:"
            " setup_gpu.sh installs it; then reboot; Secure Boot wants its kernel module signed"),
        (read_number(gpu, "driver_version") < MIN_DRIVER, f"CUDA 12 needs driver {MIN_DRIVER}+"),
        (capability < MIN_CAPABILITY, f"compute capability {capability} is too old (a K80 has 3.7):"
            " docs/gpu_machine.md lists GPUs that work"),
        (capability > MAX_CAPABILITY and backend_name == "tensorflow", f"compute capability"
            f" {capability} is newer than TensorFlow 2.21 has kernels for: try KERAS_BACKEND=jax"),
        (read_number(gpu, "memory.used") > 0.8 * read_number(gpu, "memory.total"),
            "another process holds most of the GPU's memory: nvidia-smi names it"),
        (not cuda_build, f"this {backend_name} is a CPU-only build: {use_jax}"),
        ("dlopen" in log_text, f"{backend_name} finds no CUDA libraries: {REINSTALL}"),
        ("cuInit" in log_text and not no_driver, "nvidia-smi works but CUDA does not start: reboot"
            " (after a driver update the old one is still loaded)"),
        ("LD_LIBRARY_PATH" in os.environ, "LD_LIBRARY_PATH may put other CUDA libraries first:"
            " unset it and try again"),
    ]  # fmt: skip
    return [remedy for applies, remedy in causes if applies]


def check_machine(require_gpu, log):
    """Print the report and what to try; return the exit status."""
    try:
        keras, backend = load_keras()
    except ImportError as error:
        report("FAIL", "keras", f"{error}: pip install -r requirements.txt or -cluster.txt")
        return 1
    name = backend.__name__
    gpus, cuda_build, gpu = find_gpus(backend), find_cuda_build(backend), query_driver()
    report("OK", "python", f"{platform.python_version()} ({sys.executable})")
    report("OK", "keras", keras.__version__)
    report("OK", "backend", f"{name} {backend.__version__}")
    report("OK" if cuda_build else "--", "built for", cuda_build or "the CPU alone")
    if isinstance(gpu, dict):
        report("OK", "driver", f"{gpu['driver_version']}, {gpu['name']}")
    else:
        report("--", "driver", gpu)
    for title, capability in gpus:
        report("OK", "gpu", f"{title}, compute capability {capability}")
    if not gpus:
        report("FAIL" if require_gpu else "--", "gpu", f"{name} finds none")

    try:
        product, device = multiply_matrices(keras)
        correct = np.allclose(product, PRODUCT)
        on_gpu = any(word in device.lower() for word in ("gpu", "cuda", "rocm"))
        rows = ", ".join(f"[{row[0]:g}, {row[1]:g}]" for row in product)
        text = f"[{rows}] on {device}"
        text += "" if correct else f", but it must be {PRODUCT}"
        text += ", although there is a GPU" if gpus and not on_gpu else ""
        passed = correct and (on_gpu or not gpus)
        report("OK" if passed else "FAIL", "product", text)
        for speed_device in ["cpu:0", "gpu:0"] if on_gpu else ["cpu:0"]:
            seconds = time_product(keras, speed_device)
            rate = f"{2 * SIZE**3 / seconds / 1e9:,.0f} GFLOP/s"
            report("OK", f"{speed_device[:3]} speed", f"{seconds:.4f} s, {rate} ({SIZE} x {SIZE})")
    except Exception as error:  # whatever a backend raises when its GPU cannot work
        report("FAIL", "product", f"{type(error).__name__}: {str(error).splitlines()[0]}")
        passed, on_gpu = False, False

    if passed and on_gpu:
        print("A GPU does the work.")
        return 0
    log.seek(0)
    log_text = log.read()
    print("What to try where a GPU should be used:")
    for remedy in suggest_remedies(name, cuda_build, gpu, log_text):
        print(f"  - {remedy}")
    for line in [line for line in log_text.splitlines() if re.search("dlopen|cuInit", line)][:3]:
        print(f"  {name} says: {line}")
    if passed and not require_gpu:
        print("No GPU is used; on the CPU everything works.")
        return 0
    return 1


def main():
    """Parse the command line and check the machine; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--require-gpu", action="store_true", help="fail unless a GPU is used")
    arguments = parser.parse_args()
    with capture_log() as log:
        return check_machine(arguments.require_gpu, log)


if __name__ == "__main__":
    sys.exit(main())
