"""Check that this machine can train: a matrix product, a convolution and a step of fit, and where.

Book: chapter 1, "Installing TensorFlow and Keras": the product of a 2 x 3 and a 3 x 2 matrix must
be [[22, 28], [49, 64]], computed on the GPU. That alone proves little: a convolution needs cuDNN,
too, and on a GPU Keras's fit needs the compiler XLA with its libdevice and ptxas.

    python chapter01/check_gpu.py                  # a report; a machine with no GPU passes
    python chapter01/check_gpu.py --require-gpu    # fails unless a GPU does the work

Each item says OK, FAIL or -- (not there); the last two say what to try. The exit status is 1 when
one says FAIL.
"""

import argparse
import os
import platform
import re
import subprocess
import sys

import numpy as np

INSTALL = "pip install -r requirements.txt 'tensorflow[and-cuda]'"
REMEDIES = {
    "keras": [
        "if KERAS_BACKEND is set: unset it, or install that backend",
        "if there is a ~/.keras/keras.json, which an older Keras may have left: delete it",
        "pip install -r requirements.txt (JAX: requirements-cluster.txt)",
    ],
    "gpu": [
        "no driver: bash setup_gpu.sh, then reboot; Secure Boot wants its kernel module signed",
        "WSL: NVIDIA's driver in Windows, none in Linux; a container: start it with --gpus all",
        "Windows itself, macOS, Linux on ARM: TensorFlow uses no GPU; take WSL 2 or the cloud",
        "CUDA 12 needs driver 525 or newer, TensorFlow 2.21 a compute capability from 6.0 on",
        f"dlopen or cuInit above the table: {INSTALL}; for JAX: pip install 'jax[cuda12]'",
        "CUDA_VISIBLE_DEVICES may hide it, LD_LIBRARY_PATH bring other CUDA libraries: unset them",
    ],
    "product": [
        "reboot, if the driver was updated: the old one may still be loaded",
        "compute capability above 9.0: TensorFlow 2.21 has no kernels for it; KERAS_BACKEND=jax",
    ],
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


def load_keras():
    """Keras with its backend. Raises what they raise where one is missing or set wrongly."""
    # Or a backend takes nearly all the memory of a GPU that others may use.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import keras

    settings = f"{keras.config.image_data_format()}, {keras.config.floatx()}"
    if settings != "channels_last, float32":
        raise ValueError(f"images and numbers are {settings}, not channels_last, float32")
    return keras


def find_gpus(keras):
    """The names of the GPUs that the backend can use."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return [gpu.name for gpu in tf.config.list_physical_devices("GPU")]
    try:
        return keras.distribution.list_devices("gpu")
    except RuntimeError:  # JAX's way to say that there is none
        return []


def ask_driver():
    """Driver, compute capability and name of the first GPU; "" where nvidia-smi does not answer."""
    command = ["nvidia-smi", "--query-gpu=driver_version,compute_cap,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.partition("\n")[0]


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
    loss = model.fit(images, labels, verbose=0).history["loss"][0]
    if not np.isfinite(loss) or (model.get_weights()[0] == before).all():
        raise ValueError(f"the loss is {loss:g}, or the weights have not moved")
    return f"loss {loss:.2f}", model.weights[0].value.device


WORKS = {"product": multiply_matrices, "convolution": convolve_images, "fit": fit_one_step}


def report(status, item, text):
    """Print one line of the table, and what to try where it is not OK but FAIL or -- (none)."""
    print(f"{status:<5} {item:<12} {text}", flush=True)
    for remedy in REMEDIES.get(item, []) if status != "OK" else []:
        print(f"        try: {remedy}")


def check(item, keras, gpus):
    """Do one item's work and report it; return whether it passed."""
    try:
        text, device = WORKS[item](keras)
        # TensorFlow writes /job:localhost/replica:0/task:0/device:GPU:0, JAX cuda:0.
        device = str(device).rsplit("device:", maxsplit=1)[-1]
        if gpus and not re.match("gpu|cuda|rocm", device.lower()):
            raise ValueError(f"{text} on {device}, although there is a GPU")
    except Exception as error:  # whatever a backend raises when its GPU cannot work
        report("FAIL", item, f"{type(error).__name__}: {error}".splitlines()[0])
        return False
    report("OK", item, f"{text} on {device}")
    return True


def main():
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--require-gpu", action="store_true", help="fail unless a GPU is used")
    require_gpu = parser.parse_args().require_gpu
    try:
        keras = load_keras()
    except Exception as error:  # ImportError, ValueError, and what a broken installation raises
        report("FAIL", "keras", f"{type(error).__name__}: {error}".splitlines()[0])
        return 1
    backend, gpus, driver = keras.backend.backend(), find_gpus(keras), ask_driver()
    report("OK", "python", f"{platform.python_version()} ({sys.executable})")
    report("OK", "keras", f"{keras.__version__} on {backend} {sys.modules[backend].__version__}")
    report("OK" if driver else "--", "driver", driver or "nvidia-smi finds none")
    missing = "FAIL" if require_gpu else "--"
    report("OK" if gpus else missing, "gpu", ", ".join(gpus) or f"{backend} finds none")
    passed = [check(item, keras, gpus) for item in WORKS]
    if not all(passed) or (not gpus and require_gpu):
        return 1
    print("A GPU does the work." if gpus else "No GPU is used; on the CPU everything works.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
