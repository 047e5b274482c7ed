"""setup_gpu.sh on imitated machines, and the requirements files.

Its PATH holds imitations alone that write down how they were called, so nothing here can install
anything; one test runs it in the environment that pytest runs in, with pip kept offline.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT, assert_clear_error
from packaging.requirements import Requirement

SCRIPT, REQUIREMENTS = ROOT / "setup_gpu.sh", ROOT / "requirements.txt"
REQUIRED = list(map(Requirement, re.findall(r"^\w[^#\n]*", REQUIREMENTS.read_text(), re.M)))
REAL_TOOLS = ["awk", "bash", "cat", "cut", "dirname", "env", "grep", "ls", "sed", "tail", "tr"]
REAL_TOOLS += ["cp", "mkdir", "touch"]  # for the imitated `python -m venv`
IMITATED = ["apt-get", "dnf", "dpkg", "curl", "modprobe", "dmesg", "gcc", "make", "sudo"]
GPU = "00:1e.0 3D controller: NVIDIA Corporation {} (rev a1)"
T4, V100 = GPU.format("TU104GL [Tesla T4]"), GPU.format("GV100GL [Tesla V100 SXM2 16GB]")
K80, BLACKWELL = GPU.format("GK210GL [Tesla K80]"), GPU.format("GB202GL [RTX PRO 6000 Blackwell]")
NO_GPU = "00:1e.0 VGA compatible controller: Amazon.com, Inc. Device 1111"
# ID, VERSION_ID, kernel, and the packages that kernels come by
SYSTEMS = {
    "ubuntu2204": ("ubuntu", "22.04", "6.8.0-1031-aws", ["aws"]),
    "ubuntu2404": ("ubuntu", "24.04", "6.14.0-1011-gcp", ["gcp"]),
    "debian12": ("debian", "12", "6.1.0-38-cloud-amd64", ["cloud-amd64"]),
    "debian13": ("debian", "13", "6.12.41+deb13-cloud-amd64", ["cloud-amd64", "amd64"]),
    "amzn2023": ("amzn", "2023", "6.12.40-64.114.amzn2023.x86_64", []),
    "amzn2023, first kernel": ("amzn", "2023", "6.1.150-174.273.amzn2023.x86_64", []),
    "ubuntu2604": ("ubuntu", "26.04", "7.0.0-14-generic", ["generic"]),
    "fedora": ("fedora", "43", "6.17.1-300.fc43.x86_64", []),
}
APT = "apt-get -o DPkg::Lock::Timeout=300"
QUIETLY = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 600}


class Machine:
    """A folder of imitated commands to be used as PATH. DRIVER is what nvidia-smi says."""

    def __init__(self, folder, system="ubuntu2404", lspci=T4, driver=(), without="", gigabytes=50):
        self.bin, self.log, self.folder = folder / "bin", folder / "calls.log", folder
        self.bin.mkdir()
        self.log.touch()
        for tool in REAL_TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        name, version, kernel, metas = SYSTEMS[system]
        self.etc = folder / "etc"
        (self.etc / "apt/sources.list.d").mkdir(parents=True)
        (self.etc / "os-release").write_text(f'ID={name}\nVERSION_ID="{version}"\n')
        self.answer("uname", f'[ "$1" = -m ] && echo x86_64 || echo {kernel}')
        self.answer("id", f"echo {1000 if 'root' in without else 0}")
        self.answer("lspci", f"echo '{lspci}'")
        kernels = "".join(f"installed linux-image-{m}\n" for m in [*metas, f"unsigned-{kernel}"])
        self.answer("dpkg-query", f"echo '{kernels}not-installed linux-image-x'")
        self.answer("df", f"echo header; echo /dev/root 1 1 {gigabytes << 20} 60% /")
        for command in IMITATED:
            if command not in without:
                self.imitate(command, 'exec "$@"' if command == "sudo" else "exit 0")
        self.set_python(fits="python" not in without)
        if driver:
            self.set_driver(*driver)

    def imitate(self, command, body="exit 0"):
        self.answer(command, f'echo "${{0##*/}} $*" >>"{self.log}"\n{body}')

    def answer(self, command, body):
        """Imitate a command that only tells something: its calls are not written down."""
        (self.bin / command).write_text(f"#!{shutil.which('sh')}\n{body}\n")
        (self.bin / command).chmod(0o755)

    def set_python(self, fits, name="python3"):
        """Imitate a Python: asked with -c, it says whether it FITS; `-m venv DIR` makes DIR."""
        venv = 'mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; touch "$3/bin/activate"'
        fits = f'case $* in -c*) exit {int(not fits)};; "-m venv"*) {venv};; esac'
        self.imitate(name, fits)

    def set_driver(self, gpu="7.5, Tesla T4", version="580.95.05", works_if="true"):
        says = f'case $* in *driver*) echo {version};; *) echo "{gpu}";; esac'
        self.answer("nvidia-smi", f"{works_if} || exit 9\n{says}")

    def run(self, *options, status=0):
        result = subprocess.run(
            [shutil.which("bash"), SCRIPT, "--venv", "venv", *options],
            env={"PATH": str(self.bin), "ETC": str(self.etc)},
            cwd=self.folder,
            **QUIETLY,
        )
        assert result.returncode == status, result.stdout + result.stderr
        return result

    @property
    def calls(self):
        return re.sub(r".* -c .*\n", "", self.log.read_text())


def assert_in_order(text, *parts):
    assert re.search(".*".join(map(re.escape, parts)), text, re.S), text


@pytest.mark.parametrize("system", ["ubuntu2204", "ubuntu2404", "debian12", "debian13", "amzn2023"])
def test_dry_run(tmp_path, system):
    """Every command in its order, and none is run; sudo for those that need it, unless root."""
    apt, root = system != "amzn2023", system == "debian12"
    without = ["gcc", *([] if root else ["root"]), *([] if apt else ["python"])]
    machine = Machine(tmp_path, system, without=without)
    output = machine.run("--dry-run").stdout
    kernel, metas = SYSTEMS[system][2:]
    packages = [
        "dnf install -y gcc gcc-c++ make python3.11 python3.11-devel",  # its own is Python 3.9
        f"dnf install -y dkms kernel6.12-devel-{kernel} kernel6.12-modules-extra-{kernel}",
        "dnf install -y dnf-plugins-core",
        "dnf config-manager --add-repo https://developer.download.nvidia.com",
        "/compute/cuda/repos/amzn2023/x86_64/cuda-amzn2023.repo",
        "dnf module enable -y nvidia-driver:open-dkms",
    ]
    if apt:
        packages = [
            f"{APT} update",
            "install -y build-essential python3-dev python3-venv",
            f"install -y linux-headers-{kernel}",
            *[f"install -y linux-headers-{meta}" for meta in metas],  # for the next kernels
            "install -y curl",
            f"/compute/cuda/repos/{system}/x86_64/cuda-keyring_1.1-1_all.deb",
            f"{APT} update",
        ]
    (tensorflow,) = re.findall(r"^tensorflow(>\S+)", REQUIREMENTS.read_text(), re.M)
    assert_in_order(
        output,
        *packages,
        "install -y nvidia-open",
        "modprobe nvidia",
        f"{'python3' if apt else 'python3.11'} -m venv {tmp_path}/venv",
        f"-m pip install -r {REQUIREMENTS} 'tensorflow[and-cuda]{tensorflow}'",
        f"{ROOT}/chapter01/check_gpu.py --require-gpu",
    )
    assert "unsigned" not in output and "cuda-toolkit" not in output
    for command in re.findall(r"^\+ (.*)", output, re.M):
        administers = re.search("apt-get|dnf|dpkg|curl|modprobe|sed -i", command)
        assert command.startswith("sudo ") == bool(administers and not root), command
    assert machine.calls == "" and not (tmp_path / "venv").exists()


@pytest.mark.parametrize("system", ["ubuntu2604", "fedora"])
def test_driver_that_works_is_left_alone(tmp_path, system):
    """Where nothing has to be installed, any system will do, and no administrator is needed."""
    machine = Machine(tmp_path, system, driver=["8.9, NVIDIA L4"], without="root sudo")
    assert machine.run("--dry-run").stdout.count("\n+ ") == 3  # venv, pip, check


@pytest.mark.parametrize(
    ("system", "lspci", "parts"),
    [
        ("ubuntu2404", V100, ["-y nvidia-driver-pinning-580", "cuda-drivers", "cudnn-cu12<9.11"]),
        ("amzn2023", V100, ["-y nvidia-driver:580-dkms", "cuda-drivers", "cudnn-cu12<9.11"]),
        ("ubuntu2404", BLACKWELL, ["no kernels for this generation"]),
    ],
)
def test_generation_decides_the_driver(tmp_path, system, lspci, parts):
    output = Machine(tmp_path, system, lspci).run("--dry-run").stdout
    assert_in_order(output, *parts)
    assert ("nvidia-open" in output) == (lspci != V100)


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ({"system": "ubuntu2604"}, "--yes", ["Python 3.14", "choose the image of Ubuntu 24.04"]),
        ({"system": "fedora", "without": "python"}, "--yes", ["fedora", "Debian 12", "--cpu"]),
        ({"system": "debian13"}, "--system-cuda", ["Debian 13"]),
        ({"lspci": NO_GPU}, "--yes", ["no NVIDIA GPU", "--cpu"]),
        ({"lspci": K80}, "--dry-run", ["K80", "docs/gpu_machine.md"]),  # the book's GPU
        ({"driver": ["3.7, Tesla K80"]}, "--yes", ["K80", "docs/gpu_machine.md"]),
        ({"driver": ["7.5, T4", "470.256.02"]}, "--yes", ["driver 470", "525", "remove it"]),
        ({"gigabytes": 14}, "--yes", ["14 GB are free", "growpart", "resize2fs"]),
        ({"gigabytes": 3}, "--cpu", ["3 GB are free"]),
        ({"without": "python"}, "--cpu", ["Python 3.10", "python3-venv", "uv venv --seed"]),
        ({"without": "root sudo gcc"}, "--yes", ["sudo", "root"]),
        ({}, "", ["--yes"]),  # nobody is asked
        ({}, "--cpu --venv etc", ["etc is there but", "--venv"]),  # a folder of something else
        ({}, "--gpu", ["--gpu"]),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_installed(tmp_path, parts, options, words):
    machine = Machine(tmp_path, **parts)
    assert_clear_error(machine.run(*options.split(), status=2), *words)
    assert machine.calls == ""


def test_cpu_needs_no_administrator_and_no_known_system(tmp_path):
    machine = Machine(tmp_path, "fedora", NO_GPU, without="root sudo python")
    machine.set_python(fits=True, name="python3.12")
    machine.run("--cpu")
    assert machine.calls.splitlines() == [
        f"python3.12 -m venv {tmp_path}/venv",
        f"python -m pip install -r {REQUIREMENTS}",
        f"python {ROOT}/chapter01/check_gpu.py",
    ]
    (machine.bin / "python3.12").unlink()  # as with an environment that uv has made
    machine.run("--cpu")


def test_after_a_failed_step_and_after_a_reboot_it_goes_on(tmp_path):
    machine = Machine(tmp_path, without="gcc")
    machine.imitate("apt-get", "echo 'E: no route to host' >&2; exit 100")
    assert 'Python" failed. What to try:' in machine.run("--yes", status=1).stderr
    machine.imitate("apt-get")
    output = machine.run("--yes", status=3).stdout  # the driver is there, but no nvidia-smi yet
    assert "Reboot (sudo reboot) and run this script" in output
    assert f"{APT} install -y nvidia-open" in machine.calls and not (tmp_path / "venv").exists()
    machine.log.write_text("")
    machine.imitate("gcc")
    machine.set_driver()
    machine.run("--yes")
    (tmp_path / "venv/lib/python3.11/site-packages/tensorflow").mkdir(parents=True)
    machine.answer("df", "echo header; echo /dev/root 1 1 1 60% /")  # it needs the room no more
    machine.run("--yes")
    assert_in_order(machine.calls, "python3 -m venv", *["pip install", "--require-gpu"] * 2)
    assert "apt-get" not in machine.calls


@pytest.mark.parametrize(
    ("system", "headers"),
    [("debian13", "linux-headers-6.12.41"), ("amzn2023, first kernel", "kernel-devel-6.1.150")],
)
def test_driver_without_a_module_for_the_new_kernel_is_built(tmp_path, system, headers):
    machine = Machine(tmp_path, system)
    machine.set_driver(works_if=f"[ -e {tmp_path}/module ]")
    machine.imitate("dkms", f"touch {tmp_path}/module")
    machine.run("--yes")
    assert_in_order(machine.calls, headers, "dkms autoinstall", "modprobe nvidia", "check_gpu.py")
    assert "nvidia-open" not in machine.calls


def test_driver_that_stays_broken_is_installed_again_and_the_kernel_asked_why(tmp_path):
    machine = Machine(tmp_path, "debian12")
    machine.set_driver(works_if="false")
    machine.imitate("dkms", "echo Error! >&2; exit 10")
    machine.imitate("apt-get", "case $* in *headers*) exit 100;; esac")  # as with a broken package
    machine.imitate("dmesg", "echo usb: new device; echo nvidia: Key was rejected by service")
    sources = machine.etc / "apt/sources.list.d/debian.sources"
    sources.write_text("Types: deb\nURIs: http://deb.debian.org/debian\nComponents: main\n")
    for _ in range(2):
        result = machine.run("--yes", status=3)
    assert_in_order(machine.calls, "linux-headers-6.1", "dkms", "install -y nvidia-open", "dmesg")
    assert "Key was rejected" in result.stdout and "usb" not in result.stdout
    assert "Reboot" in result.stdout and "failed. What to try" not in result.stderr
    assert sources.read_text().endswith("Components: main contrib\n")  # once


@pytest.mark.parametrize("system", ["ubuntu2404", "amzn2023"])
def test_system_cuda(tmp_path, system):
    """The toolkit stands in for the wheels; its paths are written once."""
    machine = Machine(tmp_path, system, driver=["8.9, NVIDIA L4"])
    for _ in range(2):
        output = machine.run("--system-cuda").stdout
    parts = ["install -y cuda-toolkit-12-9 cudnn9-cuda-12", "-m pip install", "LD_LIBRARY_PATH="]
    assert_in_order(output, f"/compute/cuda/repos/{system}/x86_64/", *parts)
    assert "and-cuda" not in output
    lines = (tmp_path / "venv/bin/activate").read_text().splitlines()
    assert len(lines) == 3 and lines[0] == "export CUDA_HOME=/usr/local/cuda-12.9"


@pytest.mark.slow
def test_script_for_real_in_this_environment(tmp_path):
    if sys.prefix == sys.base_prefix:
        pytest.skip("pytest does not run in a virtual environment")
    result = subprocess.run(
        ["bash", SCRIPT, "--cpu", "--venv", sys.prefix],
        env={**os.environ, "PIP_NO_INDEX": "1"},  # pip can replace nothing
        cwd=tmp_path,
        **QUIETLY,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "OK    product      [[22, 28], [49, 64]]" in result.stdout
    assert f"Ready. In every new shell: source {sys.prefix}/bin/activate" in result.stdout


def test_box2d_is_asked_for_where_it_has_a_wheel_and_tensorboard_for_todays_setuptools():
    (box2d,) = [r for r in REQUIRED if "box2d" in r.extras]
    for system, machine in (("linux", "x86_64"), ("darwin", "arm64"), ("linux", "aarch64")):
        environment = {"sys_platform": system, "platform_machine": machine}
        assert box2d.marker.evaluate(environment) == (machine != "aarch64")
    (tensorboard,) = [r for r in REQUIRED if r.name == "tensorboard"]
    assert "2.20.0" not in tensorboard.specifier and "2.21.0" in tensorboard.specifier


def test_lock_files_are_within_the_ranges():
    pattern = re.compile(r"^([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", re.M)
    locked = dict(pattern.findall((ROOT / "requirements.lock").read_text()))
    for requirement in REQUIRED:
        if not requirement.marker or requirement.marker.evaluate({"python_version": "3.11"}):
            assert locked[requirement.name] in requirement.specifier, requirement
    cuda = (ROOT / "requirements-cuda.lock").read_text()
    names = [name for name, _ in pattern.findall(cuda)]
    assert len(names) == cuda.count("==") and all(name.endswith("-cu12") for name in names)
    assert {"nvidia-cudnn-cu12", "nvidia-cuda-nvcc-cu12"} <= set(names)  # nvcc: ptxas, libdevice
