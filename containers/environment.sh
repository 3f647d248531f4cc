# The environment of every process in an image; sourced in the working folder, the checkout.
export PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LANG=C.UTF-8
# No package of the host: neither from its variables nor from ~/.local.
export PYTHONPATH= PYTHONHOME= PYTHONSTARTUP= # empty is unset for Python; Apptainer gives back what is really unset
export PYTHONNOUSERSITE=1
# Nothing is asked of the network, unless the caller wants a model or data set of the hub.
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
export HF_HUB_DISABLE_TELEMETRY=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
# Home and caches in the working folder, where `make clean` finds them.
export HOME="$PWD/scratch/home"
export XDG_CACHE_HOME="$HOME/.cache" XDG_CONFIG_HOME="$HOME/.config" XDG_DATA_HOME="$HOME/.local/share"
export HF_HOME="$PWD/scratch/huggingface"
export TRITON_CACHE_DIR="$XDG_CACHE_HOME/triton" TORCHINDUCTOR_CACHE_DIR="$XDG_CACHE_HOME/inductor"
export MPLCONFIGDIR="$XDG_CACHE_HOME/matplotlib" VLLM_CACHE_ROOT="$XDG_CACHE_HOME/vllm"
export TOKENIZERS_PARALLELISM=false
PREFDIST_IMAGE="$(cat /opt/prefdist/name)@$(cat /opt/prefdist/identity)"
export PREFDIST_IMAGE
