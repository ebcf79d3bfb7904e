#!/usr/bin/env bash
# Installs SLURM and munge from the distribution (Debian, Ubuntu) where they are missing: seconds, as
# root. Starts nothing and changes no configuration; says what is missing where it cannot.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

missing() {
    local command
    for command in munged slurmctld slurmd sbatch srun scancel scontrol squeue; do
        command -v "$command" >/dev/null || echo "$command"
    done
}

[[ -n $(missing) ]] || exit 0
if [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null; then
    # In runlevel 1 the packages' own services, which have no configuration, are not started.
    export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
    {
        apt-get update -qq
        apt-get install -qq --yes --no-install-recommends -o DPkg::Lock::Timeout=300 \
            munge slurmctld slurmd slurm-client
    } >&2
fi
if [[ -n $(missing) ]]; then
    echo "no real SLURM here, missing:" $(missing) >&2
    echo "install them as root: apt-get install munge slurmctld slurmd slurm-client" >&2
    exit 1
fi
