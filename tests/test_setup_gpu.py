"""setup_gpu.sh on imitated machines, and the requirements files.

The script runs with a PATH that holds imitations alone: every package manager, sudo, curl and
python write down how they were called. So nothing here can install anything, except the last test
of the script, which runs it in the environment that pytest runs in, with pip kept offline.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, assert_clear_error
from packaging.requirements import Requirement

SCRIPT = ROOT / "setup_gpu.sh"
REAL_TOOLS = ["awk", "bash", "cat", "cut", "dirname", "env", "grep", "ls", "sed", "tail", "tr"]
REAL_TOOLS += ["chmod", "mkdir", "touch"]  # for the imitated `python -m venv`
LSPCI = "00:1e.0 {}: {}\n00:03.0 Ethernet controller: Amazon.com, Inc. Elastic Network Adapter\n"
T4 = LSPCI.format("3D controller", "NVIDIA Corporation TU104GL [Tesla T4] (rev a1)")
V100 = LSPCI.format("3D controller", "NVIDIA Corporation GV100GL [Tesla V100 SXM2 16GB] (rev a1)")
K80 = LSPCI.format("3D controller", "NVIDIA Corporation GK210GL [Tesla K80] (rev a1)")
NO_GPU = LSPCI.format("VGA compatible controller", "Amazon.com, Inc. Device 1111")
# ID, VERSION_ID, kernel, and the packages that kernels come by
SYSTEMS = {
    "ubuntu2204": ("ubuntu", "22.04", "6.8.0-1031-aws", ["aws"]),
    "ubuntu2404": ("ubuntu", "24.04", "6.14.0-1011-gcp", ["gcp"]),
    "debian12": ("debian", "12", "6.1.0-38-cloud-amd64", ["cloud-amd64"]),
    "debian13": ("debian", "13", "6.12.41+deb13-cloud-amd64", ["cloud-amd64", "amd64"]),
    "amzn2023": ("amzn", "2023", "6.12.40-64.114.amzn2023.x86_64", []),
    "ubuntu2604": ("ubuntu", "26.04", "7.0.0-14-generic", ["generic"]),
}
APT_SYSTEMS = ["ubuntu2204", "ubuntu2404", "debian12", "debian13"]
REPOSITORY = "https://developer.download.nvidia.com/compute/cuda/repos"
APT = "apt-get -o DPkg::Lock::Timeout=300"


class Machine:
    """A folder of imitated commands to be used as PATH, and the log of how they were called."""

    def __init__(self, folder, system="ubuntu2404", lspci=T4, root=True, python=True):
        self.bin, self.log, self.folder = folder / "bin", folder / "calls.log", folder
        self.bin.mkdir()
        self.log.touch()
        for tool in REAL_TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        name, version, kernel, metas = SYSTEMS.get(system, (system, "1", "6.1.0", []))
        self.etc = folder / "etc"
        (self.etc / "apt/sources.list.d").mkdir(parents=True)
        (self.etc / "os-release").write_text(f'ID={name}\nVERSION_ID="{version}"\n')
        self.answer("uname", f'[ "$1" = -m ] && echo x86_64 || echo {kernel}')
        self.answer("id", f"echo {0 if root else 1000}")
        self.answer("lspci", f"cat <<'END'\n{lspci}END")
        kernels = [f"installed linux-image-{name}\n" for name in [*metas, f"unsigned-{kernel}"]]
        self.answer(
            "dpkg-query", f"cat <<'END'\n{''.join(kernels)}not-installed linux-image-x\nEND"
        )
        self.set_free_disk(50)
        self.imitate("sudo", 'exec "$@"')
        for command in ["apt-get", "dnf", "dpkg", "curl", "modprobe", "dmesg"]:
            self.imitate(command)
        self.set_python(fits=python)

    def imitate(self, command, body="exit 0", log=True):
        log = f'echo "{command} $*" >>"{self.log}"\n' if log else ""
        (self.bin / command).write_text(f"#!{shutil.which('sh')}\n{log}{body}\n")
        (self.bin / command).chmod(0o755)

    def answer(self, command, body):
        """Imitate a command that only tells something: its calls are not written down."""
        self.imitate(command, body, log=False)

    def set_python(self, fits, name="python3"):
        """Imitate a Python: asked with -c, it says whether it FITS; `-m venv DIR` makes DIR."""
        log = f'echo "{name} $*" >>"{self.log}"'
        inner = f'#!{shutil.which("sh")}\\n[ "$1" = -c ] || echo "venv/python $*" >>"{self.log}"\\n'
        self.answer(
            name,
            f'[ "$1" = -c ] && exit {0 if fits else 1}\n{log}\n'
            f"""mkdir -p "$3/bin"; printf '{inner}' >"$3/bin/python"; touch "$3/bin/activate"\n"""
            f'chmod +x "$3/bin/python"',
        )

    def set_driver(self, gpu="7.5, Tesla T4", version="580.95.05"):
        self.answer("nvidia-smi", f'case $* in *driver*) echo {version};; *) echo "{gpu}";; esac')

    def set_free_disk(self, gigabytes):
        self.answer("df", f"echo header; echo /dev/root 1 1 {gigabytes << 20} 60% /")

    def add_tools(self):
        for tool in ("gcc", "make"):
            self.imitate(tool)

    def run(self, *options, venv=None):
        return subprocess.run(
            [shutil.which("bash"), SCRIPT, "--venv", venv or self.folder / "venv", *options],
            env={"PATH": str(self.bin), "ETC": str(self.etc)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    @property
    def calls(self):
        return self.log.read_text().splitlines()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def printed_commands(result):
    """The commands of a dry run that works, and nothing else that it printed."""
    assert result.returncode == 0, result.stdout + result.stderr
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


def test_help(machine):
    result = machine.run("--help")
    assert result.returncode == 0
    for option in ("--cpu", "--system-cuda", "--venv DIR", "--yes", "--dry-run", "--help"):
        assert option in result.stdout


@pytest.mark.parametrize("system", APT_SYSTEMS)
@pytest.mark.parametrize("root", [True, False])
def test_dry_run_with_apt(tmp_path, system, root):
    machine = Machine(tmp_path, system, root=root)
    sources = machine.etc / "apt/sources.list.d/debian.sources"
    sources.write_text("Components: main\n")
    result = machine.run("--dry-run")
    commands = printed_commands(result)
    kernel, metas = SYSTEMS[system][2:]
    debian = system.startswith("debian")
    assert_in_order(
        commands,
        f"{APT} update",
        "install -y build-essential python3-dev python3-venv",
        f"install -y linux-headers-{kernel}",
        *[f"install -y linux-headers-{meta}" for meta in metas],  # for the next kernels
        "install -y curl",
        f"{REPOSITORY}/{system}/x86_64/cuda-keyring_1.1-1_all.deb",
        "dpkg -i",
        *(["sed -i"] if debian else []),
        f"{APT} update",
        "install -y nvidia-open",
        "modprobe nvidia",
        f"python3 -m venv {tmp_path}/venv",
        f"{tmp_path}/venv/bin/python -m pip install -r {ROOT}/requirements.txt 'tensorflow[and-",
        f"{ROOT}/chapter01/check_gpu.py --require-gpu",
    )
    assert ("contrib" in result.stdout) == debian and "unsigned" not in result.stdout
    assert "dnf" not in result.stdout and "cuda-toolkit" not in result.stdout
    for command in commands:
        words = ("apt-get", "dpkg", "curl", "modprobe", "sed -i")
        administers = any(word in command for word in words)
        assert command.startswith("sudo ") == (administers and not root), command
    assert machine.calls == [] and not (tmp_path / "venv").exists()
    assert sources.read_text() == "Components: main\n"


@pytest.mark.parametrize("with_tools", [True, False])
def test_dry_run_with_dnf(tmp_path, with_tools):
    machine = Machine(tmp_path, "amzn2023", root=False)
    machine.set_python(fits=with_tools)  # Amazon Linux 2023 has Python 3.9
    if with_tools:
        machine.add_tools()
    result = machine.run("--dry-run")
    kernel = SYSTEMS["amzn2023"][2]
    tools = "sudo dnf install -y gcc gcc-c++ make python3.11 python3.11-devel"
    assert (tools in result.stdout) == (not with_tools)
    assert_in_order(
        printed_commands(result),
        f"dnf install -y dkms kernel6.12-devel-{kernel} kernel6.12-modules-extra-{kernel}",
        "sudo dnf install -y dnf-plugins-core",
        f"sudo dnf config-manager --add-repo {REPOSITORY}/amzn2023/x86_64/cuda-amzn2023.repo",
        "sudo dnf module enable -y nvidia-driver:open-dkms",
        "sudo dnf install -y nvidia-open",
        "python3 -m venv" if with_tools else "python3.11 -m venv",
        "pip install",
        "check_gpu.py --require-gpu",
    )
    assert "apt" not in result.stdout.replace("chapter01", "")
    assert machine.calls == []


def test_kernel_packages_of_the_first_amazon_kernel(tmp_path, monkeypatch):
    kernel = "6.1.150-174.273.amzn2023.x86_64"
    monkeypatch.setitem(SYSTEMS, "amzn2023", ("amzn", "2023", kernel, []))
    result = Machine(tmp_path, "amzn2023").run("--dry-run")
    assert "kernel-devel-6.1.150" in result.stdout and "kernel6.1" not in result.stdout


@pytest.mark.parametrize("system", [*SYSTEMS, "fedora"])
def test_driver_that_works_is_left_alone(tmp_path, system):
    """Where nothing has to be installed, any system will do, and no administrator is needed."""
    machine = Machine(tmp_path, system, root=False)
    machine.set_driver()
    machine.add_tools()
    result = machine.run("--dry-run")
    assert len(printed_commands(result)) == 3, result.stdout  # venv, pip, check
    assert "sudo" not in result.stdout and "nvidia-open" not in result.stdout
    assert "LD_LIBRARY_PATH" not in result.stdout  # the wheels need none
    assert machine.calls == []


@pytest.mark.parametrize("system", ["ubuntu2204", "ubuntu2404", "debian12", "amzn2023"])
def test_system_cuda(tmp_path, system):
    machine = Machine(tmp_path, system)
    machine.set_driver()
    result = machine.run("--dry-run", "--system-cuda")
    assert_in_order(
        printed_commands(result),
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


def test_tensorflow_range_is_that_of_the_requirements(machine):
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    (line,) = [line for line in requirements if line.startswith("tensorflow>")]
    versions = line.split()[0].removeprefix("tensorflow")
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
    assert_in_order(printed_commands(result), *packages, "'nvidia-cudnn-cu12<9.11'")
    assert "nvidia-open" not in result.stdout


def test_blackwell_gets_a_warning(machine):
    machine.set_driver("12.0, NVIDIA RTX PRO 6000 Blackwell Server Edition")
    result = machine.run("--dry-run")
    assert result.returncode == 0 and "no kernels for this generation" in result.stdout


UBUNTU_2604 = ["Python 3.14", "choose the image of Ubuntu 24.04"]
FEDORA = ["fedora", "Ubuntu 24.04", "Debian 12 or 13", "Amazon Linux 2023", "--cpu"]


@pytest.mark.parametrize(
    ("parts", "driver", "option", "words"),
    [
        ({"system": "ubuntu2604"}, {}, "--yes", UBUNTU_2604),
        ({"system": "ubuntu2604", "python": False}, {}, "--yes", UBUNTU_2604),
        ({"system": "fedora"}, {}, "--yes", FEDORA),
        ({"system": "fedora", "python": False}, {}, "--yes", FEDORA),
        ({"system": "debian13"}, {}, "--system-cuda", ["Debian 13"]),
        ({"lspci": NO_GPU}, {}, "--yes", ["no NVIDIA GPU", "--cpu"]),
        # the book's GPU
        ({"lspci": K80}, {}, "--dry-run", ["K80", "docs/gpu_machine.md"]),
        ({"lspci": K80}, {"gpu": "3.7, Tesla K80"}, "--yes", ["K80", "docs/gpu_machine.md"]),
        ({}, {"version": "470.256.02"}, "--yes", ["driver 470", "525", "remove it"]),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_installed(
    tmp_path, parts, driver, option, words
):
    machine = Machine(tmp_path, **parts)
    if driver:
        machine.set_driver(**driver)
    assert_clear_error(machine.run(option), *words)
    assert machine.calls == []


@pytest.mark.parametrize(("option", "gigabytes"), [("--yes", 14), ("--cpu", 3)])
def test_too_little_disk_stops_before_anything_is_installed(machine, tmp_path, option, gigabytes):
    machine.set_free_disk(gigabytes)
    result = machine.run(option)
    assert_clear_error(result, f"{gigabytes} GB are free", "growpart", "resize2fs")
    assert machine.calls == []
    (tmp_path / "venv/lib/python3.11/site-packages/tensorflow").mkdir(parents=True)
    assert "GB are free" not in machine.run(option).stderr  # it needs the room no more


@pytest.mark.parametrize("options", [["--gpu"], ["--cpu", "--system-cuda"], ["--venv"]])
def test_wrong_options(machine, options):
    assert_clear_error(machine.run(*options), options[-1])


def test_cpu_needs_no_administrator_and_no_known_system(tmp_path):
    machine = Machine(tmp_path, "fedora", lspci=NO_GPU, root=False)
    (machine.bin / "sudo").unlink()
    result = machine.run("--cpu")
    assert result.returncode == 0, result.stderr
    assert machine.calls == [
        f"python3 -m venv {tmp_path}/venv",
        f"venv/python -m pip install -r {ROOT}/requirements.txt",
        f"venv/python {ROOT}/chapter01/check_gpu.py",
    ]


def test_cpu_with_a_python_that_does_not_fit(machine):
    machine.set_python(fits=False)
    assert_clear_error(machine.run("--cpu"), "Python 3.10", "python3-venv", "uv venv --seed")
    machine.set_python(fits=True, name="python3.12")
    assert machine.run("--cpu").returncode == 0
    assert machine.calls[0].startswith("python3.12 -m venv")
    (machine.bin / "python3.12").unlink()  # as with an environment that uv has made
    assert machine.run("--cpu").returncode == 0


def test_folder_of_something_else_is_not_touched(machine, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/cat.jpg").touch()
    assert_clear_error(machine.run("--cpu", venv=tmp_path / "photos"), "photos", "--venv")
    assert machine.calls == []


def test_driver_is_not_installed_unasked(machine):
    assert_clear_error(machine.run(), "--yes")
    assert not any("nvidia" in call for call in machine.calls)


def test_reboot_and_run_again(machine, tmp_path):
    result = machine.run("--yes")  # the driver is installed, but nvidia-smi does not appear
    assert result.returncode == 3, result.stdout + result.stderr
    assert "Reboot" in result.stdout and "run this script" in result.stdout
    assert f"{APT} install -y nvidia-open" in machine.calls
    assert not (tmp_path / "venv").exists()

    machine.log.write_text("")
    machine.set_driver()
    machine.add_tools()
    assert machine.run("--yes").returncode == 0
    assert [call.split()[0] for call in machine.calls] == ["python3", "venv/python", "venv/python"]


@pytest.mark.parametrize("system", ["ubuntu2404", "debian13", "amzn2023"])
def test_driver_without_a_module_for_the_new_kernel_is_built(tmp_path, system):
    machine = Machine(tmp_path, system)
    machine.add_tools()
    machine.answer("nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    machine.imitate("dkms", f"cp {machine.bin}/ready {machine.bin}/nvidia-smi")
    (machine.bin / "cp").symlink_to(shutil.which("cp"))
    machine.answer("ready", 'case $* in *driver*) echo 580.95;; *) echo "7.5, Tesla T4";; esac')
    result = machine.run("--yes")
    assert result.returncode == 0, result.stdout + result.stderr
    kernel = SYSTEMS[system][2]
    assert_in_order(machine.calls, kernel, "dkms autoinstall", "modprobe nvidia", "check_gpu.py")
    assert not any("nvidia-open" in call for call in machine.calls)


def test_driver_that_stays_broken_is_installed_again_and_the_kernel_asked_why(machine):
    machine.answer("nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    machine.imitate("dkms", "echo Error! >&2; exit 10")
    machine.imitate("apt-get", "case $* in *headers*) exit 100;; esac")  # as with a broken package
    machine.add_tools()
    machine.imitate("dmesg", "echo usb: new device; echo nvidia: Key was rejected by service")
    result = machine.run("--yes")
    assert result.returncode == 3, result.stdout + result.stderr
    assert_in_order(machine.calls, "linux-headers-6.14", "dkms", "install -y nvidia-open", "dmesg")
    assert "Key was rejected" in result.stdout and "usb" not in result.stdout
    assert "Reboot" in result.stdout and "failed. What to try" not in result.stderr


def test_driver_that_answers_at_once_saves_the_reboot(machine):
    driver = f"printf '#!/bin/sh\\necho 7.5, Tesla T4\\n' >{machine.bin}/nvidia-smi"
    machine.imitate("modprobe", f"{driver}; chmod +x {machine.bin}/nvidia-smi")
    result = machine.run("--yes")
    assert result.returncode == 0, result.stdout + result.stderr
    assert machine.calls[-1].endswith("check_gpu.py --require-gpu")


def test_debian_gets_contrib_once(tmp_path):
    machine = Machine(tmp_path, "debian12")
    new = machine.etc / "apt/sources.list.d/debian.sources"
    old = machine.etc / "apt/sources.list"
    new.write_text("Types: deb\nURIs: http://deb.debian.org/debian\nComponents: main\n")
    old.write_text("# main\ndeb http://deb.debian.org/debian bookworm main non-free-firmware\n")
    for _ in range(2):
        machine.run("--yes")
    assert new.read_text().endswith("Components: main contrib\n")
    assert old.read_text() == (
        "# main\ndeb http://deb.debian.org/debian bookworm main contrib non-free-firmware\n"
    )


def test_secure_boot_is_mentioned(machine):
    machine.answer("mokutil", "echo SecureBoot enabled")
    assert "Secure Boot is on" in machine.run("--dry-run").stdout
    machine.answer("mokutil", "echo SecureBoot disabled")
    assert "Secure Boot is on" not in machine.run("--dry-run").stdout


def test_system_cuda_paths_are_written_once(machine, tmp_path):
    machine.set_driver()
    for _ in range(2):
        assert machine.run("--system-cuda").returncode == 0
    lines = (tmp_path / "venv/bin/activate").read_text().splitlines()
    assert len(lines) == 3 and lines[0] == "export CUDA_HOME=/usr/local/cuda-12.9"


def test_failed_step_says_what_to_try(machine):
    machine.imitate("apt-get", "echo 'E: no route to host' >&2; exit 100")
    result = machine.run("--yes")
    assert result.returncode == 1
    assert 'error: "Build tools and Python" failed. What to try:' in result.stderr
    assert "is there a network?" in result.stderr
    assert not any("curl" in call for call in machine.calls)  # it stopped there


def test_packages_without_root_and_sudo(tmp_path):
    machine = Machine(tmp_path, root=False)
    (machine.bin / "sudo").unlink()
    assert_clear_error(machine.run("--yes"), "sudo", "root")


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
    assert "OK    product      [[22, 28], [49, 64]]" in result.stdout
    assert f"Ready. In every new shell: source {sys.prefix}/bin/activate" in result.stdout
    assert subprocess.run(pip_list, capture_output=True, text=True).stdout == before


# The requirements files


def read_requirements(name):
    lines = [line.split(" #")[0].strip() for line in (ROOT / name).read_text().splitlines()]
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


@pytest.mark.parametrize(
    ("system", "machine", "has_box2d"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", False),  # no wheel there
        ("darwin", "arm64", True),
        ("win32", "AMD64", True),
    ],
)
def test_box2d_is_asked_for_where_it_has_a_wheel(system, machine, has_box2d):
    environment = {"sys_platform": system, "platform_machine": machine}
    asked = [
        requirement
        for requirement in read_requirements("requirements.txt")
        if not requirement.marker or requirement.marker.evaluate(environment)
    ]
    extras = {extra for r in asked if r.name == "gymnasium" for extra in r.extras}
    assert "classic-control" in extras and ("box2d" in extras) == has_box2d


def test_tensorboard_runs_with_todays_setuptools():
    (tensorboard,) = [r for r in read_requirements("requirements.txt") if r.name == "tensorboard"]
    assert "2.20.0" not in tensorboard.specifier and "2.21.0" in tensorboard.specifier


def test_lock_files_are_within_the_ranges():
    pattern = re.compile(r"^([\w.-]+)==(\S+) \\\n    --hash=sha256:[0-9a-f]{64}", re.M)
    locked = dict(pattern.findall((ROOT / "requirements.lock").read_text()))
    for requirement in read_requirements("requirements.txt"):
        if not requirement.marker or requirement.marker.evaluate({"python_version": "3.11"}):
            assert locked[requirement.name] in requirement.specifier, requirement
    cuda = (ROOT / "requirements-cuda.lock").read_text()
    assert "-r requirements.lock\n" in cuda
    names = [name for name, _ in pattern.findall(cuda)]
    assert len(names) == cuda.count("==") and all(name.endswith("-cu12") for name in names)
    for library in ("cublas", "cudnn", "cuda-nvcc"):  # nvcc: ptxas and libdevice
        assert f"nvidia-{library}-cu12" in names
