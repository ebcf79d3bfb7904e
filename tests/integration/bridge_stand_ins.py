"""Stand-ins that let the real Megatron-Bridge be imported where there is no CUDA.

    python bridge_stand_ins.py SCRIPT ARGUMENT...    runs a script with them in place

Transformer Engine and its like need CUDA to install. What is taken from them while a config is
built is names to import and classes to derive from: both are given here, nothing is computed.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.metadata
import runpy
import sys
import types
from collections.abc import Sequence
from typing import Any

import torch

NAMES = (
    "transformer_engine",
    "transformer_engine_torch",
    "mamba_ssm",
    "causal_conv1d",
    "nvidia_resiliency_ext",
    "modelopt",
    "wandb",
    "mlflow",
    "qwen_vl_utils",
    "open_clip",
    "timm",
    "fla",
)
VERSIONS = {"transformer-engine": "2.12.0", "transformer_engine": "2.12.0", "mamba_ssm": "2.2.5"}


class FusedAdam:
    """What megatron-core looks for in the signature of Transformer Engine 2.12's optimizer."""

    def __init__(
        self,
        params: Any,
        *,
        master_weight_dtype: Any = None,
        exp_avg_dtype: Any = None,
        exp_avg_sq_dtype: Any = None,
        use_decoupled_grad: bool = False,
        store_param_remainders: bool = False,
    ) -> None:
        raise NotImplementedError("a stand-in: it trains nothing")


class _SubscriptableMeta(type):
    def __getitem__(cls, _: Any) -> Any:
        return cls


class _StandInModule(types.ModuleType):
    """A capitalised attribute is a torch module to derive from; any other holds such."""

    __version__ = "2.12.0"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "FusedAdam":
            value: Any = FusedAdam
        elif name[0].isupper():
            value = _SubscriptableMeta(name, (torch.nn.Module,), {})
        else:
            value = _StandInModule(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value

    def __call__(self, *args: object, **kwargs: object) -> None:
        """Nothing is computed."""


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] not in NAMES:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _StandInModule(spec.name)
        module.__path__ = []
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing: attributes come when they are asked for."""


def install() -> None:
    """Puts the stand-ins behind whatever is really installed."""
    real_version = importlib.metadata.version

    def version(distribution_name: str) -> str:
        return VERSIONS.get(distribution_name) or real_version(distribution_name)

    sys.meta_path.append(_Finder())
    importlib.metadata.version = version  # what asks for Transformer Engine's release


if __name__ == "__main__":
    install()
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")
