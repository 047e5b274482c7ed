"""setup_gpu.sh on imitated machines, chapter01/check_gpu.py on this one.

The shell script runs with a PATH that holds imitations alone: every package manager, sudo, curl
and python write down how they were called. So nothing here can install anything, except the last
test, which runs the script in the environment that pytest runs in, with pip kept offline.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, assert_clear_error

SCRIPT = ROOT / "setup_gpu.sh"
REAL_TOOLS = ["awk", "bash", "cat", "cut", "df", "dirname", "env", "grep", "ls", "sed", "tr"]
MAKING_FOLDERS = ["chmod", "mkdir", "touch"]  # for the imitated `python -m venv`
LSPCI = "00:1e.0 {}: {}\n00:03.0 Ethernet controller: Amazon.com, Inc. Elastic Network Adapter\n"
T4 = LSPCI.format("3D controller", "NVIDIA Corporation TU104GL [Tesla T4] (rev a1)")
L4 = LSPCI.format("3D controller", "NVIDIA Corporation AD104GL [L4] (rev a1)")
V100 = LSPCI.format("3D controller", "NVIDIA Corporation GV100GL [Tesla V100 SXM2 16GB] (rev a1)")
K80 = LSPCI.format("3D controller", "NVIDIA Corporation GK210GL [Tesla K80] (rev a1)")
NO_GPU = LSPCI.format("VGA compatible controller", "Amazon.com, Inc. Device 1111")
SYSTEMS = {
    "ubuntu2204": ("ubuntu", "22.04", "6.8.0-1031-aws"),
    "ubuntu2404": ("ubuntu", "24.04", "6.14.0-1011-gcp"),
    "debian12": ("debian", "12", "6.1.0-38-cloud-amd64"),
    "amzn2023": ("amzn", "2023", "6.12.40-64.114.amzn2023.x86_64"),
}
REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos"


class Machine:
    """A folder of imitated commands to be used as PATH, and the log of how they were called."""

    def __init__(self, folder, system="ubuntu2404", lspci=T4, root=True):
        self.bin, self.log, self.folder = folder / "bin", folder / "calls.log", folder
        self.bin.mkdir()
        self.log.touch()
        for tool in REAL_TOOLS + MAKING_FOLDERS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        name, version, kernel = SYSTEMS.get(system, (system, "1", "6.1.0"))
        self.os_release = folder / "os-release"
        self.os_release.write_text(f'ID={name}\nVERSION_ID="{version}"\n')
        self.imitate("uname", f'[ "$1" = -m ] && echo x86_64 || echo {kernel}', logged=False)
        self.imitate("id", f"echo {0 if root else 1000}", logged=False)
        self.imitate("lspci", f"cat <<'END'\n{lspci}END", logged=False)
        self.imitate("sudo", 'exec "$@"')
        for command in ["apt-get", "dnf", "dpkg", "curl", "modprobe", "add-apt-repository"]:
            self.imitate(command)
        self.set_python(fits=True)

    def imitate(self, command, body="exit 0", logged=True):
        log = f'echo "{command} $*" >>"{self.log}"\n' if logged else ""
        (self.bin / command).write_text(f"#!{shutil.which('sh')}\n{log}{body}\n")
        (self.bin / command).chmod(0o755)

    def set_python(self, fits, name="python3"):
        """Imitate a Python: asked with -c, it says whether it FITS; `-m venv DIR` makes DIR."""
        log = f'echo "{name} $*" >>"{self.log}"'
        inner = f'#!{shutil.which("sh")}\\n[ "$1" = -c ] || echo "venv/python $*" >>"{self.log}"\\n'
        self.imitate(
            name,
            f'[ "$1" = -c ] && exit {0 if fits else 1}\n{log}\n'
            f"""mkdir -p "$3/bin"; printf '{inner}' >"$3/bin/python"; touch "$3/bin/activate"\n"""
            f'chmod +x "$3/bin/python"',
            logged=False,
        )

    def add_driver(self, gpu="7.5, Tesla T4"):
        self.imitate("nvidia-smi", f'echo "{gpu}"', logged=False)

    def remove(self, *commands):
        for command in commands:
            (self.bin / command).unlink()

    def run(self, *options, venv=None):
        return subprocess.run(
            [shutil.which("bash"), SCRIPT, "--venv", venv or self.folder / "venv", *options],
            env={"PATH": str(self.bin), "OS_RELEASE_FILE": str(self.os_release)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def calls(self):
        return self.log.read_text().splitlines()


def printed_commands(result):
    """The commands of a dry run, and nothing else that it printed."""
    return [line[2:] for line in result.stdout.splitlines() if line.startswith("+ ")]


def assert_in_order(commands, *parts):
    """Every part is found in COMMANDS, each in a later command than the part before it."""
    position = -1
    for part in parts:
        found = [i for i, line in enumerate(commands) if part in line and i > position]
        assert found, f"{part!r} is missing or too early in:\n" + "\n".join(commands)
        position = found[0]


def test_shellcheck_finds_nothing():
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.defpath}")
    if not shellcheck:
        pytest.skip("shellcheck is not installed (requirements-dev.txt has it)")
    result = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_syntax_and_help(tmp_path):
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    result = Machine(tmp_path).run("--help")
    assert result.returncode == 0
    for option in ("--cpu", "--system-cuda", "--venv DIR", "--yes", "--dry-run", "--help"):
        assert option in result.stdout


@pytest.mark.parametrize("system", ["ubuntu2204", "ubuntu2404", "debian12"])
@pytest.mark.parametrize("root", [True, False])
def test_dry_run_with_apt(tmp_path, system, root):
    machine = Machine(tmp_path, system, root=root)
    result = machine.run("--dry-run")
    assert result.returncode == 0, result.stderr
    commands = printed_commands(result)
    assert_in_order(
        commands,
        "apt-get -o DPkg::Lock::Timeout=300 update",
        "install -y build-essential python3-dev python3-venv",
        f"{REPOSITORY}/{system}/x86_64/cuda-keyring_1.1-1_all.deb",
        "dpkg -i",
        *(["add-apt-repository -y contrib"] if system == "debian12" else []),
        "apt-get -o DPkg::Lock::Timeout=300 update",
        f"install -y linux-headers-{SYSTEMS[system][2]}",
        "install -y nvidia-open",
        "modprobe nvidia",
        f"python3 -m venv {tmp_path}/venv",
        f"{tmp_path}/venv/bin/python -m pip install -r {ROOT}/requirements.txt 'tensorflow[and-",
        f"{ROOT}/chapter01/check_gpu.py --require-gpu",
    )
    assert ("contrib" in result.stdout) == (system == "debian12")
    assert "dnf" not in result.stdout and "cuda-toolkit" not in result.stdout
    for command in commands:
        administers = any(word in command for word in ("apt-", "dpkg", "curl", "modprobe"))
        assert command.startswith("sudo ") == (administers and not root), command
    assert machine.calls == [] and not (tmp_path / "venv").exists()


def test_dry_run_with_dnf(tmp_path):
    machine = Machine(tmp_path, "amzn2023", lspci=L4, root=False)
    machine.set_python(fits=False)  # Amazon Linux 2023 has Python 3.9
    result = machine.run("--dry-run")
    assert result.returncode == 0, result.stderr
    kernel = SYSTEMS["amzn2023"][2]
    assert_in_order(
        printed_commands(result),
        "sudo dnf install -y gcc gcc-c++ make python3.11 python3.11-devel",
        f"sudo dnf config-manager --add-repo {REPOSITORY}/amzn2023/x86_64/cuda-amzn2023.repo",
        f"dnf install -y dkms kernel6.12-devel-{kernel} kernel6.12-modules-extra-{kernel}",
        "sudo dnf module enable -y nvidia-driver:open-dkms",
        "sudo dnf install -y nvidia-open",
        "python3.11 -m venv",
        "pip install",
        "check_gpu.py --require-gpu",
    )
    assert "apt" not in result.stdout.replace("chapter01", "")
    assert machine.calls == []


def test_kernel_packages_of_the_first_amazon_kernel(tmp_path, monkeypatch):
    monkeypatch.setitem(SYSTEMS, "amzn2023", ("amzn", "2023", "6.1.150-174.273.amzn2023.x86_64"))
    result = Machine(tmp_path, "amzn2023").run("--dry-run")
    assert "kernel-devel-6.1.150" in result.stdout and "kernel6.1" not in result.stdout


@pytest.mark.parametrize("system", SYSTEMS)
def test_driver_that_works_is_left_alone(tmp_path, system):
    machine = Machine(tmp_path, system, root=False)
    machine.add_driver()
    machine.imitate("gcc")
    machine.imitate("make")
    result = machine.run("--dry-run")
    assert result.returncode == 0, result.stderr
    commands = printed_commands(result)
    assert len(commands) == 3, commands  # venv, pip, check: no administrator needed
    assert "sudo" not in result.stdout and "nvidia-open" not in result.stdout
    assert machine.calls == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_system_cuda(tmp_path, system):
    machine = Machine(tmp_path, system)
    machine.add_driver()
    result = machine.run("--dry-run", "--system-cuda")
    assert result.returncode == 0, result.stderr
    commands = printed_commands(result)
    assert_in_order(
        commands,
        f"{REPOSITORY}/{system}/x86_64/",
        "install -y cuda-toolkit-12-9 cudnn9-cuda-12",
        "-m venv",
        "-m pip install",
        "export CUDA_HOME=/usr/local/cuda-12.9",
        'export LD_LIBRARY_PATH="$CUDA_HOME/lib64',
        "LD_LIBRARY_PATH=/usr/local/cuda-12.9/lib64",
    )
    assert "and-cuda" not in result.stdout  # the toolkit stands in for the wheels
    assert machine.calls == []


def test_wheels_need_no_library_path(tmp_path):
    machine = Machine(tmp_path)
    machine.add_driver()
    assert "LD_LIBRARY_PATH" not in machine.run("--dry-run").stdout


def test_tensorflow_range_is_that_of_the_requirements(tmp_path):
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    (line,) = [line for line in requirements if line.startswith("tensorflow>")]
    versions = line.split()[0].removeprefix("tensorflow")
    machine = Machine(tmp_path)
    assert f"'tensorflow[and-cuda]{versions}'" in machine.run("--dry-run").stdout


@pytest.mark.parametrize(
    ("system", "packages"),
    [
        ("ubuntu2404", ["install -y nvidia-driver-pinning-580", "install -y cuda-drivers"]),
        ("amzn2023", ["module enable -y nvidia-driver:580-dkms", "install -y cuda-drivers"]),
    ],
)
def test_gpu_before_turing_gets_the_last_driver_and_cudnn_for_it(tmp_path, system, packages):
    result = Machine(tmp_path, system, lspci=V100).run("--dry-run")
    assert result.returncode == 0, result.stderr
    assert_in_order(printed_commands(result), *packages, "'nvidia-cudnn-cu12<9.11'")
    assert "nvidia-open" not in result.stdout


@pytest.mark.parametrize("with_driver", [True, False])
def test_k80_of_the_book_is_refused(tmp_path, with_driver):
    machine = Machine(tmp_path, lspci=K80)
    if with_driver:
        machine.add_driver("3.7, Tesla K80")
    assert_clear_error(machine.run("--dry-run"), "K80", "docs/gpu_machine.md")


def test_blackwell_gets_a_warning(tmp_path):
    machine = Machine(tmp_path)
    machine.add_driver("12.0, NVIDIA RTX PRO 6000 Blackwell Server Edition")
    result = machine.run("--dry-run")
    assert result.returncode == 0 and "no kernels for this generation" in result.stdout


def test_no_gpu(tmp_path):
    machine = Machine(tmp_path, lspci=NO_GPU)
    result = machine.run("--yes")
    assert_clear_error(result, "no NVIDIA GPU", "--cpu")
    assert machine.calls == []


def test_unsupported_system(tmp_path):
    result = Machine(tmp_path, "fedora").run("--dry-run")
    assert_clear_error(result, "fedora", "Ubuntu 22.04", "Debian 12", "Amazon Linux 2023", "--cpu")


@pytest.mark.parametrize("options", [["--gpu"], ["--cpu", "--system-cuda"], ["--venv"]])
def test_wrong_options(tmp_path, options):
    assert_clear_error(Machine(tmp_path).run(*options), options[-1])


def test_cpu_needs_no_administrator_and_no_known_system(tmp_path):
    machine = Machine(tmp_path, "fedora", lspci=NO_GPU, root=False)
    machine.remove("sudo")
    result = machine.run("--cpu")
    assert result.returncode == 0, result.stderr
    assert machine.calls == [
        f"python3 -m venv {tmp_path}/venv",
        f"venv/python -m pip install -r {ROOT}/requirements.txt",
        f"venv/python {ROOT}/chapter01/check_gpu.py",
    ]


def test_cpu_with_a_python_that_does_not_fit(tmp_path):
    machine = Machine(tmp_path)
    machine.set_python(fits=False)
    assert_clear_error(machine.run("--cpu"), "Python 3.10", "python3-venv")
    machine.set_python(fits=True, name="python3.12")
    assert machine.run("--cpu").returncode == 0
    assert machine.calls[0].startswith("python3.12 -m venv")


def test_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    machine = Machine(tmp_path)
    assert_clear_error(machine.run("--cpu", venv=tmp_path / "photos"), "photos", "--venv")
    assert machine.calls == []


def test_driver_is_not_installed_unasked(tmp_path):
    machine = Machine(tmp_path)
    assert_clear_error(machine.run(), "--yes")
    assert not any("nvidia" in call for call in machine.calls)


def test_reboot_and_run_again(tmp_path):
    machine = Machine(tmp_path)
    result = machine.run("--yes")  # the driver is installed, but nvidia-smi does not appear
    assert result.returncode == 3, result.stdout + result.stderr
    assert "Reboot" in result.stdout and "run this script again" in result.stdout
    assert "apt-get -o DPkg::Lock::Timeout=300 install -y nvidia-open" in machine.calls
    assert not (tmp_path / "venv").exists()

    machine.imitate("nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")  # not rebooted yet
    assert machine.run("--yes").returncode == 3

    machine.log.write_text("")
    machine.add_driver()
    machine.imitate("gcc")
    machine.imitate("make")
    assert machine.run("--yes").returncode == 0
    assert [call.split()[0] for call in machine.calls] == ["python3", "venv/python", "venv/python"]


def test_no_reboot_where_the_module_loads(tmp_path):
    machine = Machine(tmp_path)
    driver = f"printf '#!/bin/sh\\necho 7.5, Tesla T4\\n' >{machine.bin}/nvidia-smi"
    machine.imitate("modprobe", f"{driver}; chmod +x {machine.bin}/nvidia-smi")
    result = machine.run("--yes")
    assert result.returncode == 0, result.stdout + result.stderr
    assert machine.calls[-1].endswith("check_gpu.py --require-gpu")


def test_secure_boot_is_mentioned(tmp_path):
    machine = Machine(tmp_path)
    machine.imitate("mokutil", "echo SecureBoot enabled", logged=False)
    assert "Secure Boot is on" in machine.run("--dry-run").stdout
    machine.imitate("mokutil", "echo SecureBoot disabled", logged=False)
    assert "Secure Boot is on" not in machine.run("--dry-run").stdout


def test_system_cuda_paths_are_written_once(tmp_path):
    machine = Machine(tmp_path)
    machine.add_driver()
    for _ in range(2):
        assert machine.run("--system-cuda").returncode == 0
    lines = (tmp_path / "venv/bin/activate").read_text().splitlines()
    assert len(lines) == 3 and lines[0] == "export CUDA_HOME=/usr/local/cuda-12.9"


def test_failed_step_says_what_to_try(tmp_path):
    machine = Machine(tmp_path)
    machine.imitate("apt-get", "echo 'E: no route to host' >&2; exit 100")
    result = machine.run("--yes")
    assert result.returncode == 1
    assert 'error: "Build tools and Python" failed. What to try:' in result.stderr
    assert "is there a network?" in result.stderr
    assert not any("curl" in call for call in machine.calls)  # it stopped there


def test_packages_without_root_and_sudo(tmp_path):
    machine = Machine(tmp_path, root=False)
    machine.remove("sudo")
    assert_clear_error(machine.run("--yes"), "sudo", "root")


def test_little_disk_space_is_a_warning(tmp_path):
    machine = Machine(tmp_path)
    machine.remove("df")
    machine.imitate("df", "echo header; echo /dev/root 8000000 5000000 3000000 60% /", logged=False)
    result = machine.run("--dry-run")
    assert result.returncode == 0
    assert "warning: 2 GB free" in result.stderr and "10 GB" in result.stderr


@pytest.mark.slow
def test_script_for_real_in_this_environment(tmp_path):
    if sys.prefix == sys.base_prefix:
        pytest.skip("pytest does not run in a virtual environment")
    pip_list = [sys.executable, "-m", "pip", "list", "--format=freeze"]
    before = subprocess.run(pip_list, capture_output=True, text=True).stdout
    result = subprocess.run(
        ["bash", SCRIPT, "--cpu", "--venv", sys.prefix],
        env={**os.environ, "PIP_NO_INDEX": "1"},  # pip can replace nothing
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "OK    product    [[22, 28], [49, 64]]" in result.stdout
    assert f"Ready. In every new shell: source {sys.prefix}/bin/activate" in result.stdout
    assert subprocess.run(pip_list, capture_output=True, text=True).stdout == before


# --- chapter01/check_gpu.py ----------------------------------------------------------------------

NO_DEVICE = {"CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


@pytest.fixture
def check_gpu(monkeypatch):
    """The script as a module, with a small product to time."""
    spec = importlib.util.spec_from_file_location("check_gpu", ROOT / "chapter01/check_gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "SIZE", 64)
    monkeypatch.setattr(sys, "argv", ["check_gpu.py"])
    return module


def test_check_on_the_cpu(run_script, tmp_path):
    result = run_script("chapter01/check_gpu.py", cwd=tmp_path, env=NO_DEVICE)
    assert result.returncode == 0, result.stdout + result.stderr
    for line in ("OK    backend    tensorflow", "OK    product    [[22, 28], [49, 64]] on CPU:0"):
        assert line in result.stdout
    assert "OK    cpu speed" in result.stdout and "gpu speed" not in result.stdout
    assert 'CUDA_VISIBLE_DEVICES is "-1"' in result.stdout
    assert result.stderr == ""  # no log lines


def test_check_that_requires_a_gpu(run_script):
    result = run_script("chapter01/check_gpu.py", "--require-gpu", env=NO_DEVICE)
    assert result.returncode == 1
    assert "FAIL  gpu        tensorflow finds none" in result.stdout
    assert "What to try" in result.stdout and "Traceback" not in result.stderr


def test_check_on_jax_without_tensorflow(run_script, tmp_path):
    if not importlib.util.find_spec("jax"):
        pytest.skip("JAX is not installed (requirements-cluster.txt has it)")
    (tmp_path / "tensorflow.py").write_text("raise ImportError('TensorFlow must not be needed')\n")
    env = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(tmp_path)}
    result = run_script("chapter01/check_gpu.py", env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "OK    backend    jax" in result.stdout
    assert "OK    product    [[22, 28], [49, 64]] on cpu:0" in result.stdout


def test_check_without_a_backend(run_script, tmp_path):
    (tmp_path / "keras.py").write_text("raise ModuleNotFoundError(\"No module named 'keras'\")\n")
    result = run_script("chapter01/check_gpu.py", env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "FAIL  keras      No module named 'keras': pip install" in result.stdout


@pytest.mark.parametrize(
    ("gpus", "product", "status", "text"),
    [
        ([], ([[22, 28], [49, 65]], "CPU:0"), 1, "FAIL  product    [[22, 28], [49, 65]] on CPU:0"),
        ([("L4", 8.9)], ([[22, 28], [49, 64]], "CPU:0"), 1, "although there is a GPU"),
        ([("L4", 8.9)], ([[22, 28], [49, 64]], "GPU:0"), 0, "OK    gpu speed"),
    ],
)
def test_check_judges_product_and_device(
    check_gpu, monkeypatch, capsys, gpus, product, status, text
):
    monkeypatch.setattr(check_gpu, "find_gpus", lambda backend: gpus)
    monkeypatch.setattr(check_gpu, "multiply_matrices", lambda keras: product)
    monkeypatch.setattr(check_gpu, "time_product", lambda keras, device: 0.001)
    assert check_gpu.main() == status
    assert text in capsys.readouterr().out


def test_check_survives_a_gpu_that_cannot_work(check_gpu, monkeypatch, capsys):
    def raise_error(keras):
        raise RuntimeError("CUDA_ERROR_INVALID_PTX\nand more")

    monkeypatch.setattr(check_gpu, "find_gpus", lambda backend: [("RTX PRO 6000", 12.0)])
    monkeypatch.setattr(check_gpu, "multiply_matrices", raise_error)
    assert check_gpu.main() == 1
    assert "FAIL  product    RuntimeError: CUDA_ERROR_INVALID_PTX\n" in capsys.readouterr().out


def gpu_answer(**changes):
    answer = {"driver_version": "580.95.05", "name": "L4", "compute_cap": "8.9"}
    return {**answer, "memory.used": "100", "memory.total": "23034", **changes}


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        ((gpu_answer(),), {}, []),
        ((gpu_answer(),), {"CUDA_VISIBLE_DEVICES": ""}, ["hides the GPU"]),
        ((gpu_answer(),), {"LD_LIBRARY_PATH": "/opt/cuda"}, ["LD_LIBRARY_PATH"]),
        ((gpu_answer(driver_version="470.256.02"),), {}, ["needs driver 525"]),
        ((gpu_answer(compute_cap="3.7"),), {}, ["3.7 is too old"]),
        ((gpu_answer(compute_cap="12.0"),), {}, ["KERAS_BACKEND=jax"]),
        ((gpu_answer(**{"memory.used": "22000"}),), {}, ["another process"]),
        ((gpu_answer(**{"memory.used": "[N/A]"}),), {}, []),
        ((gpu_answer(), "Cannot dlopen some GPU libraries"), {}, ["tensorflow[and-cuda]"]),
        ((gpu_answer(), "failed call to cuInit: UNKNOWN ERROR"), {}, ["reboot"]),
    ],
)
def test_remedies(check_gpu, monkeypatch, arguments, environment, words):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(check_gpu.platform, "system", lambda: "Linux")
    remedies = check_gpu.suggest_remedies("tensorflow", "CUDA 12.5.1", *arguments)
    assert len(remedies) == len(words), remedies
    for word, remedy in zip(words, remedies, strict=True):
        assert word in remedy


@pytest.mark.parametrize(
    ("system", "release", "word"),
    [
        ("Windows", "11", "WSL2"),
        ("Darwin", "25.0", "macOS"),
        ("Linux", "6.6.87.2-microsoft-standard-WSL2", "driver in Windows"),
    ],
)
def test_remedies_for_systems(check_gpu, monkeypatch, system, release, word):
    monkeypatch.setattr(check_gpu.platform, "system", lambda: system)
    monkeypatch.setattr(check_gpu.platform, "release", lambda: release)
    assert any(word in text for text in check_gpu.suggest_remedies("tensorflow", None, "no driver"))
    assert "CPU-only build" in check_gpu.suggest_remedies("tensorflow", None, "no driver")[-1]


def test_driver_answers(check_gpu, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert check_gpu.query_driver() == "no nvidia-smi on this machine"
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho '580.95.05, NVIDIA L4, 8.9, 100, 23034'\n")
    fake.chmod(0o755)
    assert check_gpu.query_driver() == gpu_answer(name="NVIDIA L4")
    fake.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert check_gpu.query_driver() == "nvidia-smi fails: NVIDIA-SMI has failed"
