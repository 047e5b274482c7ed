"""Check that this machine can train: a matrix product, a convolution and a step of fit, and where.

Book: chapter 1, "Installing TensorFlow and Keras": the product of a 2 x 3 and a 3 x 2 matrix must
be [[22, 28], [49, 64]], computed on the GPU. That alone proves little: a convolution needs cuDNN,
too, and as soon as there is a GPU, Keras's fit needs the compiler XLA with its libdevice and ptxas.

    python chapter01/check_gpu.py                  # a report; a machine with no GPU passes
    python chapter01/check_gpu.py --require-gpu    # fails unless a GPU does the work

Each item says OK or FAIL, with what to try; the exit status is 1 when one says FAIL. Lines before
the table are the backend's own. It runs on TensorFlow and JAX, in 10 seconds on 2 CPU cores.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MIN_DRIVER = 525  # the oldest driver that runs CUDA 12
MIN_CAPABILITY, MAX_CAPABILITY = 6.0, 9.0  # what TensorFlow 2.21 has kernels for
INSTALL = "pip install -r requirements.txt 'tensorflow[and-cuda]'"
REMEDIES = {
    "product": ["reboot, if the driver was updated: the old one may still be loaded"],
    "convolution": [
        f"cuDNN is missing or does not fit: {INSTALL}",
        "P100, V100: pip install 'nvidia-cudnn-cu12<9.11', the last for them",
        "out of memory: nvidia-smi names other processes on the GPU",
    ],
    "fit": [
        f"XLA finds no libdevice or ptxas (they are in nvidia-cuda-nvcc-cu12): {INSTALL}",
        "a CUDA toolkit of your own: XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/local/cuda-12.9",
    ],
}


def report(status, item, text, remedies=()):
    """Print one line of the table: STATUS is OK, FAIL, or -- for what does not apply."""
    print(f"{status:<5} {item:<12} {text}", *remedies, sep="\n        try: ", flush=True)


def load_keras():
    """Import Keras and its backend. Raises what they raise where one is missing or set wrongly."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX takes 75 % of the GPU
    import keras

    settings = f"{keras.config.image_data_format()}, {keras.config.floatx()}"
    if settings != "channels_last, float32":
        raise ValueError(f"images and numbers are {settings}, not channels_last, float32")
    return keras


def find_gpus(keras):
    """The names of the GPUs that the backend can use, and whether it is a build with CUDA."""
    if keras.backend.backend() != "tensorflow":
        try:
            gpus = keras.distribution.list_devices("gpu")
        except RuntimeError:  # JAX's way to say that there is none
            gpus = []
        return gpus, bool(gpus)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:  # or TensorFlow takes nearly all the memory of a GPU that others may use
        tf.config.experimental.set_memory_growth(gpu, True)
    return [gpu.name for gpu in gpus], tf.sysconfig.get_build_info()["is_cuda_build"]


def ask_driver(field):
    """What nvidia-smi says about FIELD of the first GPU, or "" where it says nothing."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    line = answer.stdout.partition("\n")[0].strip()
    return "" if answer.returncode or line == "[N/A]" else line


def read_number(text):
    """The number that TEXT begins with ("580.95.05": 580.95), or nan, which no limit holds back."""
    match = re.match(r"\d+(\.\d+)?", text)
    return float(match.group()) if match else float("nan")


def multiply_matrices(keras):
    """The book's product, and the device that computed it. Raises ValueError if it is wrong."""
    first, second = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
    product = keras.ops.matmul(keras.ops.array(first), keras.ops.array(second))
    text = str(keras.ops.convert_to_numpy(product).round(2).tolist()).replace(".0", "")
    if text != "[[22, 28], [49, 64]]":
        raise ValueError(f"{text} instead of [[22, 28], [49, 64]]")
    return text, product.device


def convolve_images(keras):
    """A convolution with a known answer: 3 x 3 x 3 ones make 27, and the device that did it."""
    images, kernel = np.ones((8, 32, 32, 3), "float32"), np.ones((3, 3, 3, 16), "float32")
    result = keras.ops.conv(images, kernel)
    if not (keras.ops.convert_to_numpy(result) == 27).all():
        raise ValueError("not 27 everywhere")
    return "8 images, 16 kernels of 3 x 3", result.device


def fit_one_step(keras):
    """A step of training of a small convolutional network, and the device of its weights."""
    rng = np.random.default_rng(0)
    images, labels = rng.random((32, 32, 32, 3), "float32"), rng.integers(0, 10, 32)
    inputs = keras.Input((32, 32, 3))
    x = keras.layers.Conv2D(16, (3, 3), activation="relu")(inputs)
    x = keras.layers.Flatten()(keras.layers.BatchNormalization()(x))
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    before = model.get_weights()[0]
    start = time.perf_counter()
    loss = model.fit(images, labels, verbose=0).history["loss"][0]
    seconds = time.perf_counter() - start
    if not np.isfinite(loss) or (model.get_weights()[0] == before).all():
        raise ValueError(f"the loss is {loss:g}, or the weights have not moved")
    return f"loss {loss:.2f}, {seconds:.1f} s with compilation", model.weights[0].value.device


def check(item, work, keras, gpus):
    """Do one item's WORK and report it; return whether it passed."""
    try:
        text, device = work(keras)
        # TensorFlow writes /job:localhost/replica:0/task:0/device:GPU:0, JAX cuda:0.
        device = str(device).rsplit("device:", maxsplit=1)[-1]
        if gpus and not re.match("gpu|cuda|rocm", device.lower()):
            raise ValueError(f"{text} on {device}, although there is a GPU")
    except Exception as error:  # whatever a backend raises when its GPU cannot work
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        report("FAIL", item, text, REMEDIES[item])
        return False
    report("OK", item, f"{text} on {device}")
    return True


def suggest_remedies(backend, cuda_build, driver, capability):
    """What to try: the usual causes of a GPU that is not used, as far as they apply here.

    DRIVER and CAPABILITY are as in "580.95.05" and "8.9", or "" where nvidia-smi says nothing.
    """
    system, no_driver = platform.system(), not driver
    in_wsl = "microsoft" in platform.release().lower()
    in_container = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    capability = read_number(capability)
    install = INSTALL if backend == "tensorflow" else f"pip install '{backend}[cuda12]'"
    causes = [
        (visible in ("", "-1"), f'CUDA_VISIBLE_DEVICES is "{visible}" and hides the GPU: unset it'),
        (system == "Windows", "TensorFlow uses no GPU on Windows itself: run it in WSL 2"),
        (system == "Darwin", "macOS has no CUDA: use the CPU, or a GPU machine in the cloud"),
        (platform.machine() in ("aarch64", "arm64"), "TensorFlow's wheels for ARM know no GPU"),
        (no_driver and in_wsl, "WSL: install NVIDIA's driver in Windows, none in Linux"),
        (no_driver and in_container, "container: start it with --gpus all"),
        (no_driver and system == "Linux" and not (in_wsl or in_container), "no working driver:"
            " setup_gpu.sh installs it; then reboot; Secure Boot wants its kernel module signed"),
        (read_number(driver) < MIN_DRIVER, f"CUDA 12 needs driver {MIN_DRIVER}+"),
        (capability < MIN_CAPABILITY, f"compute capability {capability} is too old (a K80 has 3.7):"
            " docs/gpu_machine.md lists GPUs that work"),
        (capability > MAX_CAPABILITY and backend == "tensorflow", f"compute capability"
            f" {capability} is newer than TensorFlow 2.21 has kernels for: try KERAS_BACKEND=jax"),
        (not cuda_build, f"{backend} is there without CUDA: {install}"),
        (cuda_build and not no_driver, "look for dlopen or cuInit in the lines before the table:"
            f" CUDA libraries are missing ({install}), or an updated driver wants a reboot"),
        ("LD_LIBRARY_PATH" in os.environ, "LD_LIBRARY_PATH may put other CUDA libraries first:"
            " unset it and try again"),
    ]  # fmt: skip
    return [remedy for applies, remedy in causes if applies]


def main():
    """Print the table and what to try; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--require-gpu", action="store_true", help="fail unless a GPU is used")
    require_gpu = parser.parse_args().require_gpu
    try:
        keras = load_keras()
        backend = keras.backend.backend()
        gpus, cuda_build = find_gpus(keras)
    except Exception as error:  # ImportError, ValueError, and what a broken installation raises
        file = Path(os.environ.get("KERAS_HOME", "~/.keras"), "keras.json")
        wanted = os.environ.get("KERAS_BACKEND")
        causes = [
            (wanted, f"KERAS_BACKEND is {wanted}: unset it, or install that backend"),
            (file.expanduser().exists(), f"{file}: delete it, an older Keras may have left it"),
            (True, "pip install -r requirements.txt (JAX: requirements-cluster.txt)"),
        ]
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        report("FAIL", "keras", text, [remedy for applies, remedy in causes if applies])
        return 1
    driver, name, capability = map(ask_driver, ("driver_version", "name", "compute_cap"))
    text = f"{driver}, {name}, compute capability {capability}"
    report("OK", "python", f"{platform.python_version()} ({sys.executable})")
    report("OK", "keras", f"{keras.__version__} on {backend} {sys.modules[backend].__version__}")
    report("OK" if driver else "--", "driver", text if driver else "nvidia-smi finds none")
    missing = "FAIL" if require_gpu else "--"
    report("OK" if gpus else missing, "gpu", ", ".join(gpus) or f"{backend} finds none")
    works = {"product": multiply_matrices, "convolution": convolve_images, "fit": fit_one_step}
    failed = [item for item, work in works.items() if not check(item, work, keras, gpus)]
    if gpus and not failed:
        print("A GPU does the work.")
        return 0
    print("What to try where a GPU should be used:")
    for remedy in suggest_remedies(backend, cuda_build, driver, capability):
        print(f"  - {remedy}")
    if not failed and not require_gpu:
        print("No GPU is used; on the CPU everything works.")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
