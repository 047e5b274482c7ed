#!/usr/bin/env bash
# Make this machine ready for the scripts: NVIDIA driver, virtual environment, TensorFlow with CUDA
# and cuDNN, and a check that the GPU does the work. See docs/gpu_machine.md.
#
# Every step may be repeated: run the script again after a reboot or a failure and it goes on.
# OS_RELEASE_FILE names another file than /etc/os-release (the tests use it).
set -Eeuo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
NVIDIA_REPOSITORY=https://developer.download.nvidia.com/compute/cuda/repos
CUDA=12-9             # the newest CUDA 12, which the wheels bring, too; TensorFlow is built for 12.5
CUDA_HOME_DIR=/usr/local/cuda-12.9
OLD_GPU_BRANCH=580    # the last driver for GPUs before Turing (Pascal, Volta: P100, V100)
OLD_GPU_CUDNN='nvidia-cudnn-cu12<9.11'    # and the last cuDNN for them

usage() {
  cat <<END
Usage: bash setup_gpu.sh [options]

Prepares Ubuntu 22.04 or 24.04, Debian 12 or Amazon Linux 2023 (x86_64) with an NVIDIA GPU:
installs the driver where there is none, build tools, a virtual environment, and TensorFlow with
its CUDA and cuDNN wheels; then runs chapter01/check_gpu.py.

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
  if [[ $PACKAGER == apt ]]; then
    # A fresh cloud machine is often busy updating itself: wait for its lock, and never ask.
    run_as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a \
      apt-get -o DPkg::Lock::Timeout=300 install -y "$@"
  else
    run_as_root dnf install -y "$@"
  fi
}

refresh_package_lists() {
  [[ $PACKAGER == dnf ]] || run_as_root apt-get -o DPkg::Lock::Timeout=300 update
}

# --- looking at the machine ----------------------------------------------------------------------

detect_system() {    # sets PACKAGER and REPOSITORY
  local file=${OS_RELEASE_FILE:-/etc/os-release} system='an unknown system'
  # shellcheck source=/dev/null
  [[ ! -r $file ]] || system=$(. "$file" && printf '%s %s' "${ID:-?}" "${VERSION_ID:-?}")
  case $system in
    'ubuntu 22.04' | 'ubuntu 24.04' | 'debian 12') PACKAGER=apt ;;
    'amzn 2023') PACKAGER=dnf system='amzn2023' ;;
    *) fail "$system is not supported; Ubuntu 22.04 and 24.04, Debian 12 and Amazon Linux 2023" \
      "are, and --cpu works on any system with Python 3.10 to 3.13" ;;
  esac
  [[ $(uname -m) == x86_64 ]] ||
    fail "TensorFlow's GPU wheels are for x86_64, this is $(uname -m): add --cpu to go without GPU"
  REPOSITORY=$NVIDIA_REPOSITORY/$(printf '%s' "$system" | tr -d ' .')/x86_64
  echo "System: $system, packages by $PACKAGER"
}

detect_gpu() {    # sets HAS_DRIVER and GENERATION (ancient, old, current, new) or fails
  local gpu
  HAS_DRIVER=no
  if have nvidia-smi && gpu=$(nvidia-smi --query-gpu=compute_cap,name --format=csv,noheader); then
    HAS_DRIVER=yes
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

find_python() {    # sets PYTHON to the first that is 3.10 to 3.13 and can make environments
  local name test='import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))'
  for name in python3 python3.13 python3.12 python3.11 python3.10; do
    if have "$name" && "$name" -c "$test" 2>/dev/null; then PYTHON=$name && return; fi
  done
  return 1
}

check_disk() {    # GIGABYTES: warn when less is free where the environment goes
  local folder=$VENV free
  while [[ ! -d $folder ]]; do folder=$(dirname "$folder"); done
  free=$(df -Pk "$folder" | awk 'NR == 2 { print int($4 / 1048576) }')
  [[ -x $VENV/bin/python ]] || ((free >= $1)) ||
    echo "warning: $free GB free in $folder, $1 GB are needed: enlarge the disk first" >&2
}

# --- the steps -----------------------------------------------------------------------------------

install_tools() {
  step "Build tools and Python" "look at the package manager's message above; is there a network?"
  if find_python && have gcc && have make; then
    echo "already there"
    return
  fi
  refresh_package_lists
  if [[ $PACKAGER == apt ]]; then
    install_packages build-essential python3-dev python3-venv curl ca-certificates pciutils
    PYTHON=python3
  else    # where python3 is Python 3.9 on Amazon Linux 2023
    install_packages gcc gcc-c++ make python3.11 python3.11-devel pciutils dnf-plugins-core
    PYTHON=python3.11
  fi
  [[ $DRY_RUN == yes ]] || find_python || fail "no Python 3.10 to 3.13 found after installing it"
}

add_nvidia_repository() {
  [[ $REPOSITORY_ADDED == no ]] || return 0
  REPOSITORY_ADDED=yes
  if [[ $PACKAGER == apt ]]; then
    local keyring=/var/cache/cuda-keyring.deb    # only root can write there
    install_packages curl ca-certificates
    run_as_root curl -fsSL -o "$keyring" "$REPOSITORY/cuda-keyring_1.1-1_all.deb"
    run_as_root dpkg -i "$keyring"
    if [[ $REPOSITORY == */debian12/* ]]; then    # NVIDIA's packages need some from contrib
      install_packages software-properties-common
      run_as_root add-apt-repository -y contrib
    fi
    refresh_package_lists
  else
    run_as_root dnf config-manager --add-repo "$REPOSITORY/cuda-amzn2023.repo"
  fi
}

install_driver() {
  step "NVIDIA driver" "no headers for this kernel: update the system, reboot, run again"
  if [[ $HAS_DRIVER == yes ]]; then
    echo "already there, left as it is"
    return
  fi
  if have nvidia-smi; then
    echo "nvidia-smi is there but finds no driver. Reboot (sudo reboot) and run this script again."
    echo "If that was done: sudo dmesg | grep -i nvidia; Secure Boot refuses unsigned modules."
    exit 3
  fi
  confirm "Install NVIDIA's driver from $REPOSITORY?"
  if have mokutil && [[ $(mokutil --sb-state 2>/dev/null) == *enabled* ]]; then
    echo "Note: Secure Boot is on: the driver's module must be signed with a key that you enrol at"
    echo "the next boot (console needed), or Secure Boot be switched off in the machine's settings."
  fi
  local kernel
  kernel=$(uname -r)
  add_nvidia_repository
  if [[ $PACKAGER == apt ]]; then
    install_packages "linux-headers-$kernel"
    if [[ $GENERATION == old ]]; then
      install_packages "nvidia-driver-pinning-$OLD_GPU_BRANCH"
      install_packages cuda-drivers
    else
      install_packages nvidia-open
    fi
  else    # kernels after 6.1 carry their version in the package's name: kernel6.12-devel
    local series=kernel
    [[ $kernel == 6.1.* ]] || series=kernel$(printf '%s' "$kernel" | cut -d. -f1,2)
    install_packages dkms "$series-devel-$kernel" "$series-modules-extra-$kernel"
    if [[ $GENERATION == old ]]; then
      run_as_root dnf module enable -y "nvidia-driver:$OLD_GPU_BRANCH-dkms"
      install_packages cuda-drivers nvidia-driver-cuda
    else
      run_as_root dnf module enable -y nvidia-driver:open-dkms
      install_packages nvidia-open
    fi
  fi
  # Where no other driver holds the GPU, as on most cloud machines, this saves the reboot.
  run_as_root modprobe nvidia || true
  if [[ $DRY_RUN == no ]] && ! nvidia-smi; then
    echo "The driver is installed. Reboot (sudo reboot) and run this script again: it goes on."
    exit 3
  fi
}

install_system_cuda() {
  step "CUDA toolkit and cuDNN" "is $REPOSITORY reachable? Without --system-cuda, wheels are used"
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
  step "Python packages" "is there a network, and room on the disk (df -h)? pip's message says which"
  local tensorflow
  set -- -r "$ROOT/requirements.txt"
  if [[ $CPU == no && $SYSTEM_CUDA == no ]]; then
    tensorflow=$(sed -n 's/^tensorflow\([<>=!~][^ #]*\).*/tensorflow[and-cuda]\1/p' "$2")
    [[ -n $tensorflow ]] || fail "requirements.txt names no range for tensorflow"
    set -- "$@" "$tensorflow"
    [[ $GENERATION != old ]] || set -- "$@" "$OLD_GPU_CUDNN"
  fi
  run "$VENV/bin/python" -m pip install "$@"
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
  VENV=$ROOT/.venv CPU=no SYSTEM_CUDA=no ASSUME_YES=no DRY_RUN=no REPOSITORY_ADDED=no
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
    find_python || fail "no Python 3.10 to 3.13 with venv found: install it first (Debian and" \
      "Ubuntu: sudo apt-get install python3-venv; Amazon Linux: sudo dnf install python3.11)"
    check_disk 4
  else
    detect_system
    detect_gpu
    check_disk 10
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
