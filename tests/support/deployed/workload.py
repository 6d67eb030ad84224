"""The kvatlas container of an overlay: its settings, with the folders that it mounts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from service.cli.main import command
from service.config.configuration import Configuration, load
from service.config.discovery import DiscoverySection
from support.certificates import Authority
from support.deployed.manifests import Object, containers, named, pod_spec, workloads
from support.models.trained import write_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

KUBERNETES_IS_TO_COME = "kubernetes" not in DiscoverySection.model_fields
"""[discovery.kubernetes] is not read yet: until it is, it is left out of the configuration."""

STORE_PASSWORD = "a password"

FIELDS = {"metadata.name": "kvatlas-0", "status.podIP": "10.0.0.1", "metadata.namespace": "models"}
"""What Kubernetes tells a pod of itself."""


class Workload:
    """The kvatlas container of an overlay, and the pod around it.

    Args:
        objects: the overlay.
        folder: where its mounts are laid out as folders, with contents that fit.
    """

    file: str
    """The text of its configuration file."""

    def __init__(self, objects: list[Object], folder: Path) -> None:
        self._objects = objects
        self._folder = folder
        self.workload, self.container = next(
            (workload, container)
            for workload in workloads(objects)
            for container in containers(workload)
            if container["name"] == "kvatlas"
        )
        self.pod = pod_spec(self.workload)
        self.ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}
        self.mounts: dict[str, Object] = {
            mount["mountPath"]: mount for mount in self.container["volumeMounts"]
        }
        for path, mount in self.mounts.items():
            self._fill(self._home(path), self.volume(mount["name"]))

    def volume(self, name: str) -> Object:
        """A volume of the pod, or the claim that is made for it."""
        claims = self.workload["spec"].get("volumeClaimTemplates", [])
        made = [{"name": each["metadata"]["name"], "claim": each["spec"]} for each in claims]
        volumes: list[Object] = [*self.pod["volumes"], *made]
        (found,) = (each for each in volumes if each["name"] == name)
        return found

    def _home(self, mounted: str) -> Path:
        return self._folder / mounted.strip("/").replace("/", "_")

    def _fill(self, folder: Path, volume: Object) -> None:
        folder.mkdir()
        if "configMap" in volume:
            data = named(self._objects, "ConfigMap", volume["configMap"]["name"])["data"]
            (self.file,) = data.values()
            for name, text in data.items():
                (folder / name).write_text(self.local(self._known(text)))
        elif "persistentVolumeClaim" in volume:
            (folder / "my-model").mkdir()
            write_tokenizer(folder / "my-model")
        elif "secret" in volume:
            _fill_secret(folder, volume["secret"]["secretName"])
        else:
            assert {"emptyDir", "claim"} & set(volume), volume

    @staticmethod
    def _known(text: str) -> str:
        if not KUBERNETES_IS_TO_COME:
            return text
        return re.sub(r"\[discovery\.kubernetes\]\n(?:[^\[\n].*\n)*", "", text)

    def local(self, text: str) -> str:
        """A text with the folders in place of the paths where the container mounts them."""
        paths = "|".join(map(re.escape, self.mounts))
        pattern = rf"(?<![\w/])({paths})(?=[/\"\s]|$)"
        return re.sub(pattern, lambda found: str(self._home(found[1])), text)

    @property
    def environment(self) -> dict[str, str]:
        """What the container sets, as Kubernetes would resolve it."""
        return {each["name"]: self.local(_value(each)) for each in self.container.get("env", [])}

    def set_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Set that for this test."""
        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)

    @property
    def arguments(self) -> list[str]:
        """The arguments of the container, which the image's `kvatlas` gets."""
        return [self.local(each) for each in self.container["args"]]

    def configuration(self, monkeypatch: pytest.MonkeyPatch) -> Configuration:
        """What the service in the container reads: arguments by the command line, then the rest."""
        name, *arguments = self.arguments
        found: Any = command().commands[name]
        with found.make_context(name, arguments) as context:
            file = context.params["config"]
        self.set_environment(monkeypatch)
        return load(file, {})


def _fill_secret(folder: Path, name: str) -> None:
    """Write what deploy/README.md says that this Secret holds."""
    if name == "kvatlas-tls":
        authority = Authority(folder, "authority")
        authority.issue(folder / "tls.crt", folder / "tls.key")
        (folder / "ca.crt").write_bytes(authority.file.read_bytes())
        return
    file, text = {
        "kvatlas-tokens": ("tokens", "first\nsecond\n"),
        "kvatlas-engine-token": ("token", "key of the engines\n"),
        "kvatlas-store": ("password", f"{STORE_PASSWORD}\n"),
    }[name]
    (folder / file).write_text(text)


def _value(variable: Object) -> str:
    if "value" in variable:
        return str(variable["value"])
    return FIELDS[variable["valueFrom"]["fieldRef"]["fieldPath"]]
