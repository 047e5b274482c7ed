#!/usr/bin/env bash
# Make this machine ready for the scripts: NVIDIA driver, virtual environment, TensorFlow with CUDA
# and cuDNN, and a check that the GPU does the work. docs/gpu_machine.md says more.
#
# Every step may be repeated: run the script again after a reboot or a failure and it goes on.
# ETC names another folder than /etc (the tests use it).
set -Eeuo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ETC=${ETC:-/etc}
NVIDIA_REPOSITORY=https://developer.download.nvidia.com/compute/cuda/repos
CUDA=12-9             # the newest CUDA 12, which the wheels bring, too
CUDA_HOME_DIR=/usr/local/cuda-12.9
MIN_DRIVER=525        # the oldest driver that runs CUDA 12
GPU_DISK=15 CPU_DISK=5    # GB that the steps below need
OLD_GPU_BRANCH=580    # the last driver for GPUs before Turing (Pascal, Volta: P100, V100)
OLD_GPU_CUDNN='nvidia-cudnn-cu12<9.11'    # and the last cuDNN for them

usage() {
  cat <<END
Usage: bash setup_gpu.sh [options]

Prepares Ubuntu 22.04 or 24.04, Debian 12 or 13, or Amazon Linux 2023 (x86_64) with an NVIDIA GPU:
installs the driver where none works, build tools, a virtual environment, and TensorFlow with its
CUDA and cuDNN wheels; then runs chapter01/check_gpu.py. Where driver and Python are there already,
any Linux will do.

  --cpu          no GPU, no driver, no CUDA: works wherever there is Python 3.10 to 3.13
  --system-cuda  CUDA toolkit and cuDNN from NVIDIA's apt or dnf repository, not as wheels
  --venv DIR     where the virtual environment is or shall be (default: .venv beside this script)
  --yes          do not ask before installing the driver
  --dry-run      print every command, run none
  --help         this text

Exit status: 0 ready, 1 a step failed, 2 wrong use or unsuitable machine, 3 reboot, then run again.
END
}

# --- talking to the user -------------------------------------------------------------------------

fail() {    # MESSAGE…: stop because of the machine or the way the script was called
  printf 'error: %s\n' "$*" >&2
  exit 2
}

step() {    # NAME HINT: say what comes next; HINT is printed if it fails
  STEP=$1 HINT=$2
  printf '\n== %s\n' "$STEP"
}

report_failure() {    # called by the ERR trap
  printf '\nerror: "%s" failed. What to try: %s\n' "$STEP" "$HINT" >&2
  printf 'Then run the script again: what is done is not done twice.\n' >&2
  exit 1
}

confirm() {    # QUESTION: go on only if the answer is yes
  [[ $ASSUME_YES == no && $DRY_RUN == no ]] || return 0
  [[ -t 0 ]] || fail "nobody is there to ask: add --yes to let the script do this: $1"
  read -r -p "$1 [y/N] " answer
  [[ $answer == [yY]* ]] || fail "stopped on your answer; with --cpu the scripts work without a GPU"
}

# --- running commands ----------------------------------------------------------------------------

have() { command -v "$1" >/dev/null 2>&1; }

run() {    # COMMAND…: print it so that it can be pasted; run it unless this is a dry run
  local word line='+'
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]] || word="'$word'"
    line+=" $word"
  done
  printf '%s\n' "$line"
  [[ $DRY_RUN == yes ]] || "$@"
}

run_as_root() {
  if [[ $(id -u) == 0 ]]; then
    run "$@"
  elif have sudo; then
    run sudo "$@"
  else
    fail "installing packages needs root, and there is no sudo: run this script as root"
  fi
}

install_packages() {
  [[ $PACKAGER != none ]] || fail "$UNSUITABLE"
  if [[ $PACKAGER == dnf ]]; then
    run_as_root dnf install -y "$@"
    return
  fi
  # A fresh cloud machine is often busy updating itself: wait for its lock, and never ask.
  local apt=(apt-get -o "DPkg::Lock::Timeout=300")
  [[ $LISTS_ARE_FRESH == yes ]] || run_as_root "${apt[@]}" update
  LISTS_ARE_FRESH=yes
  run_as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a "${apt[@]}" install -y "$@"
}

# --- looking at the machine ----------------------------------------------------------------------

detect_system() {    # sets SYSTEM, PACKAGER, REPOSITORY; UNSUITABLE: why there is no PACKAGER
  local name='an unknown system'
  # shellcheck source=/dev/null
  [[ ! -r $ETC/os-release ]] || name=$(. "$ETC/os-release" && echo "${ID:-?} ${VERSION_ID:-?}")
  UNSUITABLE="on $name this script installs no packages: take the image of Ubuntu 24.04 (or 22.04,\
 Debian 12 or 13, Amazon Linux 2023); --cpu works on any system with Python 3.10 to 3.13"
  case $name in
    'ubuntu 22.04' | 'ubuntu 24.04' | 'debian 12' | 'debian 13') PACKAGER=apt ;;
    'amzn 2023') PACKAGER=dnf ;;
    'ubuntu 26.04') UNSUITABLE="Ubuntu 26.04 has Python 3.14, TensorFlow 2.21 is for 3.13 at most:\
 choose the image of Ubuntu 24.04 (docs/gpu_machine.md has another way)" ;;
  esac
  [[ $(uname -m) == x86_64 ]] ||
    fail "TensorFlow's GPU wheels are for x86_64, this is $(uname -m): add --cpu to go without GPU"
  SYSTEM=$(printf '%s' "$name" | tr -d ' .')
  [[ $SYSTEM != debian13 || $SYSTEM_CUDA == no ]] ||
    fail "NVIDIA has no CUDA 12 packages for Debian 13: leave out --system-cuda"
  REPOSITORY=$NVIDIA_REPOSITORY/$SYSTEM/x86_64
  echo "System: $name"
}

detect_gpu() {    # sets HAS_DRIVER and GENERATION (ancient, old, current, new) or fails
  local gpu driver
  HAS_DRIVER=no
  if have nvidia-smi && driver=$(ask_nvidia driver_version); then
    HAS_DRIVER=yes
    if [[ $driver =~ ^([0-9]+)\. ]] && ((BASH_REMATCH[1] < MIN_DRIVER)); then
      fail "driver ${BASH_REMATCH[1]} is too old, CUDA 12 needs $MIN_DRIVER or newer: remove it" \
        "(docs/gpu_machine.md, \"Undo\"), reboot, and run this script again"
    fi
    gpu=$(ask_nvidia compute_cap,name)
    case $gpu in    # as in "8.9, NVIDIA L4"
      [1-5].*) GENERATION=ancient ;;
      6.* | 7.[0-4]*) GENERATION=old ;;
      1[0-9].*) GENERATION=new ;;
      *) GENERATION=current ;;
    esac
  elif have lspci && gpu=$(lspci | grep -iE '(vga|3d|display).*nvidia'); then
    case $gpu in    # the chip's name, as in "NVIDIA Corporation GK210GL [Tesla K80]"
      *\ G[FKM][0-9]*) GENERATION=ancient ;;
      *\ G[PV][0-9]*) GENERATION=old ;;
      *\ GB[0-9]*) GENERATION=new ;;
      *) GENERATION=current ;;
    esac
  elif ! have lspci && grep -qs 0x10de /sys/bus/pci/devices/*/vendor; then
    gpu='an NVIDIA device on the PCI bus' GENERATION=current
  else
    fail "no NVIDIA GPU found (a container needs --gpus all, WSL the driver in Windows); add" \
      "--cpu to set up this machine without one"
  fi
  echo "GPU: $gpu"
  case $GENERATION in
    ancient) fail "this GPU is older than TensorFlow supports (compute capability 6.0; a K80 has" \
      "3.7): docs/gpu_machine.md lists GPUs that work, --cpu goes without" ;;
    old) [[ $SYSTEM_CUDA == no ]] ||
      fail "NVIDIA's newest cuDNN does not run on this GPU: leave out --system-cuda" ;;
    new) echo "Note: TensorFlow 2.21 has no kernels for this generation; the check may fail." ;;
  esac
}

ask_nvidia() { nvidia-smi --query-gpu="$1" --format=csv,noheader; }

find_python() {    # sets PYTHON to the first that is 3.10 to 3.13 and can make environments
  [[ ! -x $VENV/bin/python ]] || return 0    # make_environment looks at this one
  local name test='import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))'
  for name in python3 python3.13 python3.12 python3.11 python3.10; do
    if have "$name" && "$name" -c "$test" 2>/dev/null; then PYTHON=$name && return; fi
  done
  return 1
}

check_disk() {    # GIGABYTES: stop when less is free where the environment goes
  local folder=$VENV free
  if compgen -G "$VENV/lib/python3*/site-packages/tensorflow" >/dev/null; then return; fi
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  free=$(df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1048576) }')
  ((free >= $1)) ||
    fail "$free GB are free in $folder, $1 GB are needed: enlarge the disk in your cloud's" \
      "console, then sudo growpart /dev/nvme0n1 1 && sudo resize2fs /dev/nvme0n1p1 (lsblk shows" \
      "your disk's name; docs/gpu_machine.md has more)"
}

# --- the steps -----------------------------------------------------------------------------------

install_tools() {
  step "Build tools and Python" "look at the package manager's message above; is there a network?"
  if find_python && { [[ $PACKAGER == none ]] || { have gcc && have make; }; }; then
    echo "already there"
    return
  fi
  if [[ $PACKAGER == dnf ]]; then    # where python3 is Python 3.9
    install_packages gcc gcc-c++ make python3.11 python3.11-devel pciutils
    PYTHON=python3.11
  else
    install_packages build-essential python3-dev python3-venv pciutils
    PYTHON=python3
  fi
  [[ $DRY_RUN == yes ]] || find_python || fail "no Python 3.10 to 3.13 found after installing it"
}

add_nvidia_repository() {
  [[ $REPOSITORY_ADDED == no ]] || return 0
  REPOSITORY_ADDED=yes
  if [[ $PACKAGER == dnf ]]; then
    install_packages dnf-plugins-core
    run_as_root dnf config-manager --add-repo "$REPOSITORY/cuda-amzn2023.repo"
    return
  fi
  local file keyring=/var/cache/cuda-keyring.deb    # only root can write there
  install_packages curl ca-certificates
  run_as_root curl -fsSL -o "$keyring" "$REPOSITORY/cuda-keyring_1.1-1_all.deb"
  run_as_root dpkg -i "$keyring"
  for file in "$ETC/apt/sources.list" "$ETC/apt/sources.list.d/debian.sources"; do
    [[ $SYSTEM == debian* && -f $file ]] || continue    # NVIDIA's packages need some from contrib
    run_as_root sed -i -E '/contrib/!s/^((deb|Components:) .*\bmain)\b/\1 contrib/' "$file"
  done
  LISTS_ARE_FRESH=no
}

install_headers() {    # what the driver's module is built with, for this kernel and its updates
  local package series=kernel kernel
  kernel=$(uname -r)
  if [[ $PACKAGER == dnf ]]; then    # kernels after 6.1 have their version in the name: kernel6.12
    [[ $kernel == 6.1.* ]] || series=kernel$(printf '%s' "$kernel" | cut -d. -f1,2)
    install_packages dkms "$series-devel-$kernel" "$series-modules-extra-$kernel"
    return
  fi
  install_packages "linux-headers-$kernel"
  # Kernels come by packages such as linux-image-aws; linux-headers-aws brings headers with each.
  for package in $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'linux-image-[a-z]*' |
    sed -n '/unsigned/d; s/^installed linux-image-/linux-headers-/p' || true); do
    install_packages "$package" || echo "Note: after the next kernel update, run this script again."
  done
}

load_driver() {    # does it work? Where no other driver holds the GPU this saves the reboot
  run_as_root modprobe nvidia || true
  [[ $DRY_RUN == yes ]] || nvidia-smi
}

install_driver() {
  step "NVIDIA driver" "no headers for this kernel: update the system, reboot. A build that broke:\
 sudo dkms status, and /var/lib/dkms/nvidia/*/build/make.log says why"
  if [[ $HAS_DRIVER == yes ]]; then
    echo "already there, left as it is"
    return
  fi
  [[ $PACKAGER != none ]] || fail "$UNSUITABLE"
  confirm "Install NVIDIA's driver from $REPOSITORY?"
  if have mokutil && [[ $(mokutil --sb-state 2>/dev/null) == *enabled* ]]; then
    echo "Note: Secure Boot is on: the driver's module must be signed with a key that you enrol at"
    echo "the next boot (console needed), or Secure Boot be switched off in the machine's settings."
  fi
  if have nvidia-smi; then    # installed, but not built for this kernel; apt may stumble over it
    install_headers || true
    if have dkms; then run_as_root dkms autoinstall || true; fi
    if load_driver && [[ $DRY_RUN == no ]]; then return; fi
  else
    install_headers
  fi
  add_nvidia_repository
  if [[ $GENERATION == old && $PACKAGER == apt ]]; then
    install_packages "nvidia-driver-pinning-$OLD_GPU_BRANCH"
    install_packages cuda-drivers
  elif [[ $GENERATION == old ]]; then
    run_as_root dnf module enable -y "nvidia-driver:$OLD_GPU_BRANCH-dkms"
    install_packages cuda-drivers nvidia-driver-cuda
  else
    [[ $PACKAGER == apt ]] || run_as_root dnf module enable -y nvidia-driver:open-dkms
    install_packages nvidia-open
  fi
  if load_driver; then return; fi
  echo "The driver is installed but does not answer. Reboot (sudo reboot) and run this script"
  echo "again: it goes on. If you have rebooted since, this is what the kernel says (Secure Boot"
  echo "rejects keys that are not enrolled; nouveau must not hold the GPU):"
  run_as_root dmesg | grep -iE 'nvidia|nvrm|nouveau|lockdown' | tail -n 5 || true
  exit 3
}

install_system_cuda() {
  step "CUDA toolkit and cuDNN" "is $REPOSITORY reachable? Without --system-cuda, wheels are used"
  [[ $PACKAGER != none ]] || fail "$UNSUITABLE"
  add_nvidia_repository
  install_packages "cuda-toolkit-$CUDA" cudnn9-cuda-12
}

make_environment() {
  step "Virtual environment" "remove $VENV and run the script again"
  if [[ -x $VENV/bin/python ]]; then
    "$VENV/bin/python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
      fail "$VENV does not have Python 3.10 to 3.13: remove it, or name another one with --venv"
    echo "already there: $VENV"
  elif [[ -e $VENV && -n $(ls -A "$VENV") ]]; then
    fail "$VENV is there but is no virtual environment: name another folder with --venv"
  else
    run "$PYTHON" -m venv "$VENV"
  fi
}

install_requirements() {
  step "Python packages" "is there a network, and room on the disk (df -h)? See pip's message"
  local tensorflow
  set -- -r "$ROOT/requirements.txt"
  if [[ $CPU == no && $SYSTEM_CUDA == no ]]; then
    tensorflow=$(sed -n 's/^tensorflow\([<>=!~][^ #]*\).*/tensorflow[and-cuda]\1/p' "$2")
    [[ -n $tensorflow ]] || fail "requirements.txt names no range for tensorflow"
    set -- "$@" "$tensorflow"
    [[ $GENERATION != old ]] || set -- "$@" "$OLD_GPU_CUDNN"
  fi
  # Some systems keep /tmp in memory, where gigabytes have no room.
  run env "TMPDIR=$VENV" "$VENV/bin/python" -m pip install "$@"
}

set_cuda_paths() {    # the wheels need no paths; the toolkit in /usr/local does
  step "Paths of the CUDA toolkit in $VENV/bin/activate" "can you write to $VENV?"
  local line
  for line in "export CUDA_HOME=$CUDA_HOME_DIR" "export PATH=\"\$CUDA_HOME/bin:\$PATH\"" \
    "export LD_LIBRARY_PATH=\"\$CUDA_HOME/lib64\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}\""; do
    echo "+ $line"
    [[ $DRY_RUN == yes ]] || grep -qxF "$line" "$VENV/bin/activate" ||
      echo "$line" >>"$VENV/bin/activate"
  done
}

check_result() {
  step "Check" "see what the report above says to try"
  set -- "$VENV/bin/python" "$ROOT/chapter01/check_gpu.py"
  [[ $CPU == yes ]] || set -- "$@" --require-gpu
  [[ $SYSTEM_CUDA == no ]] || set -- env "CUDA_HOME=$CUDA_HOME_DIR" \
    "PATH=$CUDA_HOME_DIR/bin:$PATH" "LD_LIBRARY_PATH=$CUDA_HOME_DIR/lib64" "$@"
  run "$@"
}

main() {
  VENV=$ROOT/.venv CPU=no SYSTEM_CUDA=no ASSUME_YES=no DRY_RUN=no
  PACKAGER=none LISTS_ARE_FRESH=no REPOSITORY_ADDED=no
  while (($#)); do
    case $1 in
      --cpu) CPU=yes ;;
      --system-cuda) SYSTEM_CUDA=yes ;;
      --venv) [[ -n ${2:-} ]] || fail "--venv needs a folder"; VENV=${2%/} && shift ;;
      --yes) ASSUME_YES=yes ;;
      --dry-run) DRY_RUN=yes ;;
      --help | -h) usage; return ;;
      *) fail "unknown option $1; --help lists the options" ;;
    esac
    shift
  done
  [[ $CPU == no || $SYSTEM_CUDA == no ]] || fail "--cpu and --system-cuda exclude each other"

  [[ $VENV == /* ]] || VENV=$PWD/$VENV
  STEP=Start HINT="see the message above"
  trap report_failure ERR
  if [[ $CPU == yes ]]; then
    find_python || fail "no Python 3.10 to 3.13 with venv found, and TensorFlow 2.21 is for no" \
      "other: install one (Debian, Ubuntu up to 24.04: sudo apt-get install python3-venv; Amazon" \
      "Linux: sudo dnf install python3.11; anywhere: uv venv --seed --python 3.13 $VENV)"
    check_disk $CPU_DISK
  else
    detect_system
    detect_gpu
    check_disk $GPU_DISK
    install_tools
    install_driver
    if [[ $SYSTEM_CUDA == yes ]]; then install_system_cuda; fi
  fi
  make_environment
  install_requirements
  if [[ $SYSTEM_CUDA == yes ]]; then set_cuda_paths; fi
  check_result
  if [[ $DRY_RUN == yes ]]; then
    printf '\nThat was a dry run: nothing was changed.\n'
  else
    printf '\nReady. In every new shell: source %s/bin/activate\n' "$VENV"
  fi
}

main "$@"
