"""Checks of a cluster file against a recipe: images, keys, and the addresses of servers."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mira_megatron.doctor.finding import ERROR, WARNING, Finding
from mira_megatron.doctor.stage_environments import TRAINING_SECTIONS
from mira_megatron.doctor.subject import Subject
from mira_megatron.launchers.cluster import Cluster
from mira_megatron.training.cluster_training import BRIDGE, trainer_of

_LOCAL = ("127.0.0.1", "localhost", "::1")
_FIRST_FREE_PORT = 1024
# Who asks endpoints: section of the recipe -> stages that do.
_ASKING = {
    "teacher": ("discover", "label"),
    "embedder": ("group", "anchor"),
    "score": ("score", "reliability"),
    "baselines": ("baseline",),
}
_PORT_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def check_cluster(subject: Subject, cluster: Cluster) -> list[Finding]:
    """Returns what of a cluster file does not fit the stages that are still to be run."""
    left = [stage for stage in subject.stages if not subject.is_done(stage)]
    return [
        *_check_images(cluster, left),
        *_check_training_images(subject, cluster, left),
        *_check_keys(subject, cluster, left),
        *_check_servers(cluster, left),
        *_check_endpoints(subject, cluster, left),
    ]


def short_lived_ports(path: Path = _PORT_RANGE) -> range:
    """Returns the ports that Linux gives to outgoing connections, as this machine has them."""
    try:
        first, last = path.read_text().split()
    except (OSError, ValueError):
        return range(32_768, 61_000)  # the kernel's default
    return range(int(first), int(last) + 1)


def _check_images(cluster: Cluster, stages: list[str]) -> Iterator[Finding]:
    """Finds stages without an image, images that are not there, and images without a version."""
    if cluster.container_runtime == "none":
        return
    without = [stage for stage in stages if not cluster.image(stage)]
    if without:
        yield Finding(
            level=ERROR,
            what=f"no image is named for {', '.join(without)}, and container_runtime is "
            f"{cluster.container_runtime}",
            where=f"cluster {cluster.name}: containers",
            way_out="name one for each, or one under `default`",
        )
    for image in sorted({cluster.image(stage) for stage in stages} - {""}):
        where = f"cluster {cluster.name}: containers"
        if image.startswith(("/", "./", "~")) or image.endswith((".sqsh", ".sif")):
            if not Path(image).expanduser().exists():
                what = f"{image}: no such image on this machine"
                yield Finding(level=ERROR, what=what, where=where, way_out="put it there")
        elif ":" not in image.rpartition("/")[2] and "@" not in image:
            what = f"{image} names no version: jobs of one run may get different ones"
            yield Finding(level=WARNING, what=what, where=where, way_out="add its tag")


def _check_training_images(
    subject: Subject, cluster: Cluster, stages: list[str]
) -> Iterator[Finding]:
    """Finds trainings with Megatron-Bridge that run in images which differ."""
    images = {
        stage: cluster.image(stage)
        for stage, section in TRAINING_SECTIONS.items()
        if stage in stages and trainer_of(subject.recipe, section) == BRIDGE
    }
    if len(set(images.values())) > 1:
        told = ", ".join(f"{stage} in {image or 'none'}" for stage, image in images.items())
        yield Finding(
            level=WARNING,
            what=f"trainings with Megatron-Bridge run in images that differ: {told}",
            where=f"cluster {cluster.name}: containers",
            way_out="name the image that has Megatron-Bridge for each",
        )


def _check_keys(subject: Subject, cluster: Cluster, stages: list[str]) -> Iterator[Finding]:
    """Finds API keys that jobs would not be handed."""
    for section, values in _asking(subject, stages):
        variable = values.get("api_key_env")
        if variable is not None and variable not in cluster.environment:
            yield Finding(
                level=ERROR,
                what=f"it names {variable}, which is not handed on to jobs",
                where=subject.where(f"{section}.api_key_env"),
                way_out=f"add {variable} to `environment` of cluster {cluster.name}",
            )


def _check_servers(cluster: Cluster, stages: list[str]) -> Iterator[Finding]:
    """Finds addresses of servers that cannot be listened on, or not by all."""
    taken_soon = short_lived_ports()
    for stage in stages:
        server = cluster.servers.get(stage)
        if server is None:
            continue
        where = f"cluster {cluster.name}: servers.{stage}.health_urls"
        addresses = Counter(_address(url) for url in server.health_urls)
        for (host, port), times in addresses.items():
            place = f"{host}:{port}"
            if times > 1:
                what = f"{place} is named {times} times; one server would wait for another"
                yield Finding(level=ERROR, what=what, where=where, way_out="give each its port")
            if port < _FIRST_FREE_PORT:
                what = f"{place}: ports below {_FIRST_FREE_PORT:,} are root's"
                yield Finding(level=ERROR, what=what, where=where, way_out="choose another port")
            elif port in taken_soon:
                what = (
                    f"{place} lies among the ports of outgoing connections ({taken_soon[0]:,} to "
                    f"{taken_soon[-1]:,}): it may be taken when the server starts"
                )
                yield Finding(level=WARNING, what=what, where=where, way_out="choose a lower port")
            if host in _LOCAL and _is_listened_on(port):
                what = f"something listens on {place} of this machine already"
                way_out = "choose another port, if the server may run here"
                yield Finding(level=WARNING, what=what, where=where, way_out=way_out)


def _check_endpoints(subject: Subject, cluster: Cluster, stages: list[str]) -> Iterator[Finding]:
    """Finds endpoints on the node itself where nothing is started on it."""
    for section, values in _asking(subject, stages):
        name = section.partition(".")[0].replace("scorers", "score")
        asking = [stage for stage in _ASKING[name] if stage in stages]
        for endpoint in values.get("endpoints") or ():
            host, port = _address(str(endpoint))
            if host not in _LOCAL:
                continue
            for stage in asking:
                server = cluster.servers.get(stage)
                ports = {_address(url)[1] for url in server.health_urls} if server else set()
                if port not in ports:
                    yield Finding(
                        level=ERROR,
                        what=f"{endpoint} is on the node that runs {stage}, and no server is "
                        "started there on that port",
                        where=subject.where(f"{section}.endpoints"),
                        way_out=f"add servers.{stage} to cluster {cluster.name}, or name the "
                        "server's host",
                    )


def _asking(subject: Subject, stages: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields the sections that ask endpoints in stages still to be run."""
    values = subject.recipe.values
    for section, asking in _ASKING.items():
        entry = values.get(section)
        if section != "baselines" and set(asking) & set(stages) and isinstance(entry, Mapping):
            yield section, entry
    if set(_ASKING["score"]) & set(stages):
        for name, entry in subject.recipe.mapping("scorers").items():
            if isinstance(entry, Mapping):
                yield f"scorers.{name}", entry
    if "baseline" in stages:
        for name, entry in subject.recipe.mapping("baselines").items():
            if isinstance(entry, Mapping):
                yield f"baselines.{name}", entry


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _is_listened_on(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0
